"""Who answers: agent profiles, the tools they may use, and what Strands may trace of them."""
