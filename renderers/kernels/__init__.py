"""Hot operations, one folder each: a reference that defines the truth, and backends that must equal it."""
