"""Run the chat: `python -m godoty.chat`."""

from godoty.chat import main

main()
