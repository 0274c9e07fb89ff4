"""Small asyncio tools: batching, caching, limits, admission queues, periodic and cooperative loops."""
