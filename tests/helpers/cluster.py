"""Nodes without sockets, clocks and numbers: their gates alone, and queues between them that a test empties."""

import collections

from resilinet_jax.deploy.gates import Blind, Close, Decide, Incoming, Open, Receiver, Sender, Want, incoming

INPUT = "input"  # who asks: sends to every source, and wants answers from the cloud


class Node:
    """A process: all that it knows is lost when it dies."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        graph = cluster.graph
        edges = [edge for i, edge in enumerate(graph.hyperconnections) if cluster.present[i]]
        asked = [f"{INPUT}->{name}"] if name in graph.sources else []
        own = incoming(graph, name, cluster.present, cluster.activity)
        if asked:
            own = [Incoming(asked[0])]
        self.receiver = Receiver(own)
        self.senders = {
            edge.name: Sender(gated=edge.is_skip and not cluster.activity) for edge in edges if edge.source == name
        }
        self.arrived = {}
        self.stopped = False

    def act(self, actions):
        for action in actions:
            if isinstance(action, Decide):
                self.decide(action)
            elif isinstance(action, Blind):
                self.beat()
            else:
                self.cluster.control(action.edge, action)

    def decide(self, action):
        values = self.arrived.pop(action.request, {})
        for old in [request for request in self.arrived if request <= action.request]:
            del self.arrived[old]
        self.cluster.decided(self, action)
        witness = None
        if action.carries:
            witness = frozenset(action.carries).union(*(values[edge] for edge in action.carries))
        if self.name == self.cluster.graph.cloud:
            self.cluster.answer(action.request, witness)
        for edge, sender in self.senders.items():
            self.send(edge, sender.output(action.request, witness, 1))
        for edge in self.receiver.edges:
            self.cluster.control(edge, ("ack", action.request))

    def send(self, edge, messages):
        for request, witness in messages:
            self.cluster.send(edge, ("message", request, witness))

    def beat(self):
        if self.name == self.cluster.graph.cloud:
            return
        for edge in self.senders:
            self.cluster.send(edge, ("beat", self.receiver.floor or 0, self.receiver.blind))

    def take(self, edge, message):
        kind, request, what = message
        if kind == "beat":
            self.act(self.receiver.heartbeat(edge, request, what))
            return
        floor = self.receiver.floor
        if what is not None and (floor is None or request > floor):
            self.arrived.setdefault(request, {})[edge] = what
        self.act(self.receiver.message(edge, request, what is not None))

    def take_control(self, edge, control):
        sender = self.senders[edge]
        if isinstance(control, Open):
            self.send(edge, sender.open(control.since))
        elif isinstance(control, Close):
            sender.close()
        elif isinstance(control, Want):
            self.send(edge, sender.want(control.request))
        else:
            sender.ack(control[1])


class Cluster:
    """All nodes, and whoever asks."""

    def __init__(self, graph, activity, present=None, cut=()):
        self.graph, self.activity = graph, activity
        self.present = present or [True] * len(graph.hyperconnections)
        self.forward, self.backward = (
            collections.defaultdict(collections.deque),
            collections.defaultdict(collections.deque),
        )
        self.edges = {
            edge.name: (edge.source, edge.target) for i, edge in enumerate(graph.hyperconnections) if self.present[i]
        } | {f"{INPUT}->{source}": (INPUT, source) for source in graph.sources}
        self.up = set()  # hyperconnections that have a stream
        self.cut = set(cut)  # hyperconnections that nobody can dial
        self.nodes, self.answers, self.asked = {}, {}, 0
        self.log, self.messages = [], collections.Counter()
        for name in graph.order:
            self.start(name)

    # What happens.

    def start(self, name):
        self.nodes[name] = Node(self, name)
        self.connect()

    def kill(self, name):
        del self.nodes[name]
        for edge, ends in self.edges.items():
            if name in ends:
                self.disconnect(edge)

    def disconnect(self, edge):
        if edge not in self.up:
            return
        self.up.discard(edge)
        self.backward[edge].clear()
        if self.edges[edge][1] in self.nodes:
            self.forward[edge].append(("lost",))  # after all that was sent
        else:
            self.forward[edge].clear()

    def connect(self):
        for edge, (source, target) in self.edges.items():
            ready = target in self.nodes and (source == INPUT or source in self.nodes) and edge not in self.cut
            if ready and edge not in self.up:
                self.up.add(edge)
                self.forward[edge].append(("connected",))
                if source != INPUT:
                    self.nodes[source].senders[edge].connected()
                    self.nodes[source].beat()
                else:
                    self.forward[edge].append(("beat", self.asked, False))

    def ask(self):
        self.asked += 1
        for source in self.graph.sources:
            edge = f"{INPUT}->{source}"
            if edge in self.up:
                self.forward[edge].append(("message", self.asked, frozenset()))
        cloud = self.nodes[self.graph.cloud]
        cloud.act(cloud.receiver.asked(self.asked))

    def beat(self):
        for node in list(self.nodes.values()):
            if not node.stopped:
                node.beat()
        self.beat_input()

    def beat_input(self):
        for source in self.graph.sources:
            self.send(f"{INPUT}->{source}", ("beat", self.asked, False))

    def suspect(self, name):
        """All who hear from a node, or send to it, hear nothing any more."""
        for edge, (source, target) in self.edges.items():
            if source == name and target in self.nodes:
                node = self.nodes[target]
                node.act(node.receiver.lost(edge))

    def deliver(self, edge):
        """The next message over a hyperconnection, or the next word back; whether there was one."""
        source, target = self.edges[edge]
        if self.forward[edge] and target in self.nodes and not self.nodes[target].stopped:
            node, message = self.nodes[target], self.forward[edge].popleft()
            if message[0] == "lost":
                node.act(node.receiver.lost(edge))
            elif message[0] == "connected":
                node.act(node.receiver.connected(edge))
            else:
                node.take(edge, message)
            return True
        if self.backward[edge] and source in self.nodes and not self.nodes[source].stopped:
            self.nodes[source].take_control(edge, self.backward[edge].popleft())
            return True
        return False

    def settle(self):
        """Everything arrives, and everybody says that it is alive, until nothing changes any more."""
        for _ in range(3 * len(self.graph.order)):
            self.beat()
            while sum(self.deliver(edge) for edge in self.edges):
                pass

    # What nodes do.

    def send(self, edge, message):
        if edge in self.up:
            self.forward[edge].append(message)
            self.messages[edge] += message[0] == "message" and message[2] is not None

    def control(self, edge, control):
        if edge in self.up and self.edges[edge][0] != INPUT:
            self.backward[edge].append(control)

    def decided(self, node, action):
        self.log.append((node, action))

    def answer(self, request, witness):
        assert request not in self.answers, f"request {request} was answered twice"
        self.answers[request] = witness
