"""Tool calls that wait for an answer, and the steps of turns that wait for them, as the database stores them."""
