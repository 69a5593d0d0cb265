"""Results as files: pictures, arrays, tables, run folders."""
