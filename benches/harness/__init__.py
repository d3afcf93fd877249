"""What every family of benchmarks uses: the cluster, pgbench, statistics, results, the page. Nothing here knows a family."""
