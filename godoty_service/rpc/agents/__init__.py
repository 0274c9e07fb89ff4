"""AgentDefinitionService and its codecs; the command line uses the codecs, too."""
