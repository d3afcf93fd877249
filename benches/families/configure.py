"""Configuring a dense small graph and large graphs, beside a plain INSERT of as many rows as are stored."""

from harness import shapes
from harness.cluster import milliseconds
from harness.figures import Chart, Table, Verdict, median, number

ABOUT = "configure of 14 fully connected layers of 2, and of 10,000 nodes"
SECONDS = 8
LAYERS = 14
BAR = 100


def measure(cluster, sizes, say):
    cluster.sql("CREATE TABLE bench.nodes (LIKE flow.definition_node INCLUDING ALL)")
    cluster.sql("CREATE TABLE bench.edges (LIKE flow.definition_edge INCLUDING ALL)")
    figures = {"graphs": []}
    for name, configuration in (
            (f"{LAYERS} fully connected layers of 2", shapes.dense(LAYERS)),
            (f"{number(sizes.small_graph, 0)} nodes in random layers", shapes.layered(sizes.small_graph)),
            (f"{number(sizes.large_graph, 0)} nodes in random layers", shapes.layered(sizes.large_graph))):
        ours, plain = [], []
        for i in range(sizes.repeats):
            flow = f"bench_configure_{len(figures['graphs'])}_{i}"
            ours.append(milliseconds(lambda flow=flow, configuration=configuration: cluster.configure(flow, configuration)))
            definition = cluster.one("SELECT definition_id FROM flow.configured WHERE flow = %s", flow)
            plain.append(milliseconds(lambda definition=definition: cluster.sql(
                f"""WITH nodes AS (INSERT INTO bench.nodes SELECT * FROM flow.definition_node WHERE definition_id = {definition})
                    INSERT INTO bench.edges SELECT * FROM flow.definition_edge WHERE definition_id = {definition}""")))
        edges = sum(len(node["dependencies"]) for node in configuration["nodes"])
        figures["graphs"].append({"name": name, "nodes": len(configuration["nodes"]), "edges": edges,
                                  "configure": median(ours), "insert": median(plain)})
        say(f"{name} ({edges:,} edges): {median(ours):.1f} ms; a plain INSERT of those rows {median(plain):.1f} ms")
    return figures


def tables(figures):
    return {"configure": Table(["graph", "nodes", "edges", "configure_flow, ms", "a plain INSERT of these rows, ms"], [
        [graph["name"], number(graph["nodes"], 0), number(graph["edges"], 0), number(graph["configure"]), number(graph["insert"])]
        for graph in figures["graphs"]])}


def charts(figures):
    return {"configure": Chart("Configuring a flow", "milliseconds", [graph["name"] for graph in figures["graphs"]], {
        "flow.configure_flow": [graph["configure"] for graph in figures["graphs"]],
        "plain INSERT": [graph["insert"] for graph in figures["graphs"]]}, logarithmic=True)}


def verdicts(figures):
    lines = [Verdict(f"configure {graph['name']}", f"< {BAR} ms", f"{number(graph['configure'])} ms",
                     f"plain INSERT {number(graph['insert'])} ms", graph["configure"] < BAR)
             for graph in (figures["graphs"][0], figures["graphs"][2])]
    small, large = ((graph["configure"] / graph["nodes"]) for graph in figures["graphs"][1:])
    lines.append(Verdict(f"configure is linear: cost of a node of {figures['graphs'][2]['name']}",
                         f"≤ 1.5 × that of {number(figures['graphs'][1]['nodes'], 0)}", f"{large / small:.2f} × ({large:.3f} ms)",
                         f"{small:.3f} ms", large <= 1.5 * small))
    return lines
