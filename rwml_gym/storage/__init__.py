"""Results kept while and after they are computed: journals and a cache."""
