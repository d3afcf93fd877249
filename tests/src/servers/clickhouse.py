"""Runs ClickHouse out of libchdb: argv is the library, then the command line of clickhouse-local. SIGTERM ends it."""
import ctypes
import sys

library = ctypes.CDLL(sys.argv[1])
library.chdb_query_cmdline.restype = ctypes.c_void_p
library.chdb_result_error.restype = ctypes.c_char_p
library.chdb_result_error.argtypes = [ctypes.c_void_p]
arguments = [argument.encode() for argument in ["clickhouse", *sys.argv[2:]]]
result = library.chdb_query_cmdline(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments))
error = library.chdb_result_error(result) if result else b"no result"
sys.exit(error.decode(errors="replace") if error else 0)
