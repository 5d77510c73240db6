import collections
import itertools
import random

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from resilinet_jax.deploy.gates import MOST_AHEAD, Blind, Decide, Incoming, Open, ProtocolError, Receiver, Sender, Want
from resilinet_jax.network.graph import build_chain
from resilinet_jax.network.senders import senders
from tests.helpers.cluster import INPUT, Cluster
from tests.helpers.graphs import DAG
from tests.helpers.reference import CHAIN, TREE


def expected(cluster, dead):
    """By the simulator: the hyperconnections that carried to the cloud's answer, and all over which a message came."""
    graph = cluster.graph
    survival = np.array([[name not in dead for name in graph.fallible]])
    who = senders(graph, survival, np.array(cluster.present, float), bool(cluster.activity))
    over = {edge.name for edge, there in zip(graph.hyperconnections, who.arrives[0]) if there}
    if not who.sends[graph.cloud][0]:
        return None, over
    reached, order = {graph.cloud}, reversed(graph.hyperconnections)
    carried = set()
    for edge in order:
        if edge.name in over and edge.target in reached:
            carried.add(edge.name)
            reached.add(edge.source)
    return carried | {f"{INPUT}->{source}" for source in graph.sources if source in reached}, over


@pytest.mark.parametrize("activity", [0.0, 1.0], ids=["select", "add"])
@pytest.mark.parametrize("graph", [CHAIN, TREE, DAG], ids=["chain", "tree", "dag"])
def test_gates_and_messages_are_the_simulators_under_every_failure_combination(graph, activity):
    cluster = Cluster(graph, activity)
    cluster.settle()
    for count in range(len(graph.fallible) + 1):
        for dead in itertools.combinations(graph.fallible, count):
            for name in dead:
                cluster.kill(name)
            cluster.settle()
            cluster.messages.clear()
            first = cluster.asked + 1
            for _ in range(3):
                cluster.ask()
            cluster.settle()
            witness, over = expected(cluster, dead)
            assert {request: cluster.answers[request] for request in range(first, first + 3)} == {
                request: witness if witness is None else frozenset(witness) for request in range(first, first + 3)
            }
            assert +cluster.messages == dict.fromkeys(over, 3), dead
            for name in dead:
                cluster.start(name)
            cluster.settle()


@pytest.mark.parametrize("activity", [0.0, 1.0], ids=["select", "add"])
@pytest.mark.parametrize("dead", ["n1", "n2", "n3"])
def test_what_is_within_a_node_that_dies_is_not_lost(activity, dead):
    for steps in range(40):  # so many deliveries before the kill
        cluster = Cluster(CHAIN, activity)
        cluster.settle()
        for _ in range(3):
            cluster.ask()
        edges = itertools.cycle(cluster.edges)
        for _ in range(steps):
            cluster.deliver(next(edges))
        cluster.kill(dead)
        cluster.settle()
        assert len(cluster.answers) == 3
        assert None not in cluster.answers.values(), steps


def test_a_stopped_node_is_done_without_and_taken_back_when_it_has_caught_up():
    cluster = Cluster(CHAIN, 0.0)
    cluster.settle()
    cluster.nodes["n2"].stopped = True
    for _ in range(40):
        cluster.ask()
    cluster.settle()
    assert not cluster.answers  # nobody knows yet
    cluster.suspect("n2")
    cluster.settle()
    assert all("n1->n3" in cluster.answers[request] for request in range(1, 41))
    cluster.nodes["n2"].stopped = False
    cluster.settle()
    cluster.ask()
    cluster.settle()
    assert cluster.answers[41] == {f"{INPUT}->i", "i->n1", "n1->n2", "n2->n3", "n3->n4"}
    assert len(cluster.answers) == 41


@pytest.mark.parametrize("graph", [CHAIN, TREE, DAG], ids=["chain", "tree", "dag"])
def test_the_first_request_is_answered_whenever_streams_are_made(graph):
    """A node may hear that a stand-in for a dead node lives before that one hears that it has to carry."""
    for seed in range(200):
        rng = random.Random(seed)
        cluster = Cluster(graph, 0.0, cut=[edge.name for edge in graph.hyperconnections])
        cluster.kill(rng.choice(graph.fallible))
        edges, nodes = sorted(cluster.edges), list(cluster.nodes.values())
        for _ in range(400):
            what = rng.random()
            if what < 0.1:
                rng.choice(nodes).beat()
            elif what < 0.15 and cluster.cut:
                cluster.cut.discard(rng.choice(sorted(cluster.cut)))
                cluster.connect()
            elif what < 0.2:
                cluster.beat_input()
            else:
                cluster.deliver(rng.choice(edges))
            if not cluster.asked and not cluster.nodes[graph.cloud].receiver.blind:
                cluster.ask()
        cluster.cut.clear()
        cluster.connect()
        cluster.settle()
        assert cluster.answers.keys() == set(range(1, cluster.asked + 1)), seed
        assert None not in cluster.answers.values(), seed


def test_a_slow_node_is_overtaken_where_somebody_waits_too_long():
    cluster = Cluster(CHAIN, 0.0)
    cluster.settle()
    cluster.nodes["n2"].stopped = True
    cluster.ask()
    cluster.settle()
    n3 = cluster.nodes["n3"]
    n3.act(n3.receiver.waited())  # it knows of the request: n1, whose skip is closed, has told that it is past it
    cluster.settle()
    assert cluster.answers[1] == {f"{INPUT}->i", "i->n1", "n1->n3", "n3->n4"}


def test_numbers_that_nobody_can_have_got_to_are_refused():
    for event in (Receiver.message, Receiver.heartbeat):
        receiver = Receiver([Incoming("a->b")])
        receiver.heartbeat("a->b", 5, False)
        with pytest.raises(ProtocolError, match=f"{MOST_AHEAD + 6}, far ahead of 5"):
            event(receiver, "a->b", MOST_AHEAD + 6, event is Receiver.message)


@pytest.mark.parametrize("event", [Receiver.message, Receiver.heartbeat, Receiver.asked])
def test_who_was_cut_off_for_long_starts_afresh(event):
    receiver = Receiver([Incoming("a->b")])
    receiver.message("a->b", 1, True)
    receiver.lost("a->b")
    far = MOST_AHEAD + 100
    if event is Receiver.asked:
        assert receiver.asked(far) == [Decide(far, ())]  # it hears from nobody
    elif event is Receiver.message:
        assert receiver.message("a->b", far, True) == [Decide(far, ("a->b",)), Blind(False)]
    else:
        assert receiver.heartbeat("a->b", far, False) == [Blind(False)]
    assert receiver.floor == far
    receiver.heartbeat("a->b", far, False)
    assert receiver.message("a->b", far + 1, True) == [Decide(far + 1, ("a->b",))]


def test_outputs_that_are_kept_are_bounded():
    sender = Sender(gated=True, most_bytes=100)
    sender.connected()
    for request in range(1, 50):
        assert sender.output(request, f"value {request}", 10) == []
    assert sender.open(1) == [(request, f"value {request}") for request in range(40, 50)]
    assert sender.want(3) == [(3, None)]  # gone: said, so that nobody waits for it
    sender.ack(45)
    assert sender.open(1) == []  # all that is kept has been sent
    sender.close()
    assert [request for request, _ in sender.open(1)] == [46, 47, 48, 49]


def test_a_node_that_has_just_started_wants_no_old_outputs():
    receiver = Receiver([Incoming("n1->n2"), Incoming("i->n2", "n1->n2")])
    assert Open("i->n2", 0) in receiver.connected("i->n2")


A, B = "a->t", "b->t"  # two that always carry


def both_up(until=0):
    """A node that hears from both, and has decided so many requests."""
    receiver = Receiver([Incoming(A), Incoming(B)])
    for edge in (A, B):
        receiver.heartbeat(edge, 0, False)
    for request in range(1, until + 1):
        receiver.message(A, request, True)
        assert receiver.message(B, request, True) == [Decide(request, (A, B))]
    return receiver


def test_a_heartbeat_comes_after_the_outputs_that_its_watermark_counts():
    receiver = both_up()
    receiver.message(B, 1, True)
    assert receiver.lost(B) == []
    assert receiver.lost(A) == [Decide(1, (B,)), Blind(True)]
    assert receiver.message(A, 2, True) == [Decide(2, (A,)), Blind(False)]


def test_a_later_message_says_that_an_earlier_one_will_not_come():
    receiver = both_up()
    assert receiver.message(A, 1, True) == []
    assert receiver.message(B, 2, True) == [Decide(1, (A,))]


def test_who_comes_back_is_waited_for_from_the_next_unknown_request_on():
    receiver = both_up(100)
    receiver.lost(B)
    receiver.asked(103)  # so it exists, wherever it is
    assert receiver.heartbeat(B, 98, False) == []  # it lags a little
    assert receiver.message(A, 101, True) == [Decide(101, (A,))]
    for request in (102, 103):
        assert receiver.message(A, request, True) == [Decide(request, (A,))]
    assert receiver.message(A, 104, True) == []
    assert receiver.message(B, 104, True) == [Decide(104, (A, B))]


def test_who_lags_far_behind_is_not_waited_for():
    receiver = both_up(100)
    receiver.lost(B)
    receiver.heartbeat(B, 3, False)
    assert receiver.message(A, 101, True) == [Decide(101, (A,))]
    assert receiver.message(B, 4, True) == []  # late, so no sign that it has caught up
    assert receiver.message(A, 102, True) == [Decide(102, (A,))]


def test_a_word_without_a_value_is_no_sign_of_life():
    receiver = both_up(1)
    receiver.lost(B)
    receiver.message(B, 2, False)
    assert receiver.message(A, 2, True) == [Decide(2, (A,))]
    assert receiver.message(A, 3, True) == [Decide(3, (A,))]


def test_what_was_before_a_node_started_is_not_decided_again():
    receiver = Receiver([Incoming(A)])
    assert receiver.heartbeat(A, 50, False) == [Blind(False)]
    assert receiver.message(A, 51, True) == [Decide(51, (A,))]


def test_a_closed_skip_is_asked_for_what_the_simple_one_did_not_bring():
    simple, skip = "n1->n2", "i->n2"
    receiver = Receiver([Incoming(simple), Incoming(skip, simple)])
    receiver.heartbeat(simple, 0, False)
    receiver.heartbeat(skip, 0, False)
    assert receiver.message(simple, 2, True) == [Want(skip, 1)]
    assert receiver.message(skip, 1, True) == [Decide(1, (skip,)), Decide(2, (simple,))]


def test_a_sender_gives_what_is_wanted_as_soon_as_it_has_it():
    sender = Sender(gated=True)
    sender.connected()
    assert sender.want(2) == []
    assert sender.output(1, "one", 1) == []
    assert sender.output(2, "two", 1) == [(2, "two")]
    assert sender.open(0) == []  # later ones alone
    assert sender.output(3, "three", 1) == [(3, "three")]
    sender.close()
    assert sender.output(4, "four", 1) == []
    assert sender.open(3) == [(3, "three"), (4, "four")]


GRAPHS = {"chain": CHAIN, "dag": DAG, "two nodes": build_chain(("i", "a", "b"))}


class Chaos(RuleBasedStateMachine):
    """Nodes are killed, stopped, cut off and started again between any two deliveries."""

    def __init__(self):
        super().__init__()
        self.cluster = None

    @precondition(lambda self: self.cluster is None)
    @rule(graph=st.sampled_from(sorted(GRAPHS)), activity=st.sampled_from([0.0, 1.0]))
    def begin(self, graph, activity):
        self.cluster = Cluster(GRAPHS[graph], activity)
        self.cluster.settle()

    ready = precondition(lambda self: self.cluster is not None)

    @ready
    @rule(count=st.integers(1, 5))
    def ask(self, count):
        for _ in range(count):
            self.cluster.ask()

    @ready
    @rule(data=st.data(), count=st.integers(1, 30))
    def deliver(self, data, count):
        edges = sorted(self.cluster.edges)
        for _ in range(count):
            self.cluster.deliver(data.draw(st.sampled_from(edges)))

    @ready
    @rule(data=st.data())
    def change(self, data):
        cluster = self.cluster
        name = data.draw(st.sampled_from(cluster.graph.fallible))
        if name not in cluster.nodes:
            cluster.start(name)
        elif cluster.nodes[name].stopped:
            cluster.nodes[name].stopped = False
        elif data.draw(st.booleans()):
            cluster.kill(name)
        else:
            cluster.nodes[name].stopped = True

    @ready
    @rule(data=st.data())
    def suspect(self, data):
        """Rightly or wrongly."""
        self.cluster.suspect(data.draw(st.sampled_from(self.cluster.graph.order[:-1])))

    @ready
    @rule(data=st.data())
    def cut(self, data):
        cluster = self.cluster
        edge = data.draw(st.sampled_from(sorted(edge.name for edge in cluster.graph.hyperconnections)))
        if edge in cluster.cut:
            cluster.cut.discard(edge)
            cluster.connect()
        else:
            cluster.cut.add(edge)
            cluster.disconnect(edge)

    @ready
    @rule()
    def beat(self):
        self.cluster.beat()

    @ready
    @rule(data=st.data())
    def wait(self, data):
        node = self.cluster.nodes.get(data.draw(st.sampled_from(self.cluster.graph.order)))
        if node is not None and not node.stopped:
            node.act(node.receiver.waited())

    @invariant()
    def every_decision_is_made_once_in_order_and_no_gate_is_open_beside_what_it_stands_in_for(self):
        if self.cluster is None:
            return
        last = collections.defaultdict(int)
        for node, action in self.cluster.log:
            assert isinstance(action, Decide)
            assert last[node] == 0 or action.request == last[node] + 1
            last[node] = action.request
            for name in action.carries:
                assert node.receiver.edges[name].stands_for not in action.carries
        self.cluster.log.clear()

    def teardown(self):
        """All is mended: every request has its answer, and the next one goes where the simulator says."""
        cluster = self.cluster
        if cluster is None:
            return
        cluster.cut.clear()
        for name in cluster.graph.order:
            if name not in cluster.nodes:
                cluster.start(name)
            cluster.nodes[name].stopped = False
        cluster.connect()
        cluster.settle()
        assert sorted(cluster.answers) == list(range(1, cluster.asked + 1))
        cluster.ask()
        cluster.settle()
        assert cluster.answers[cluster.asked] == expected(cluster, ())[0]


Chaos.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
TestChaos = Chaos.TestCase
