//! What sessions do: push a step, cancel the run, run it again. Each in a transaction of its own, told of when it has
//! ended.

use crate::state::{Action, ClientState, Event, State};
use crate::tables::{own_place, step_places, Ended, Id, Node, NodeState, Tables, Task};
use crate::{Broken, Client, Scenario};

impl State {
    /// `c`: 0 is who started the run, then the scenario's clients.
    pub fn client_actions(&self, scenario: &Scenario, c: usize, actions: &mut Vec<Action>) {
        match &self.clients[c] {
            ClientState::Idle if self.may_enter(scenario, scenario.clients[c - 1]) => actions.push(Action::Enter(c)),
            ClientState::Telling(_) => actions.push(Action::Tell(c)),
            // It waits for those who are just writing an outcome, and for the dispatcher.
            ClientState::CancellingNodes => {
                let locked = |id: Id| self.is_locked_by_worker(id) || self.is_locked_by_cycle(id);
                if !self.tables.ids().any(|(id, task)| task.is_open() && locked(id)) {
                    actions.push(Action::EndTasks(c));
                }
            }
            ClientState::Pushing { .. } | ClientState::CancellingTasks(_) => {
                actions.push(Action::CommitClient(c));
                actions.push(Action::RollBack(c));
            }
            ClientState::Idle | ClientState::Done => {}
        }
    }

    /// Whether a session gets the first lock that it needs.
    fn may_enter(&self, scenario: &Scenario, client: Client) -> bool {
        let cycle = &self.dispatcher.cycle;
        match client {
            Client::Push { node, .. } => cycle.nodes_locked & 1 << node == 0,
            Client::Cancel => !cycle.run_locked && !self.is_run_locked(),
            Client::Restart | Client::Retry => {
                let is_pushed_to = (0..scenario.nodes.len()).any(|n| self.is_pushed_to(scenario, n));
                let is_writing = self.tables.ids().any(|(id, _)| self.is_locked_by_worker(id));
                self.tables.run.ended && cycle.is_empty() && !cycle.run_locked && !is_pushed_to && !is_writing
            }
        }
    }

    pub fn client_step(&mut self, scenario: &Scenario, c: usize, action: Action) {
        self.clients[c] = match (action, std::mem::replace(&mut self.clients[c], ClientState::Done)) {
            (Action::Tell(_), ClientState::Telling(events)) => {
                for event in events {
                    self.send(scenario, event);
                }
                ClientState::Done
            }
            (Action::Enter(_), _) => self.enter(scenario, scenario.clients[c - 1]),
            (Action::EndTasks(_), _) => {
                let open = self.tables.ids().filter(|t| t.1.is_open()).map(|t| t.0);
                ClientState::CancellingTasks(open.map(|id| (id, self.running(id).next().is_some())).collect())
            }
            (Action::CommitClient(_), ClientState::Pushing { held, early, age }) => {
                self.commit_push(scenario.clients[c - 1], held, early, age)
            }
            (Action::CommitClient(_), ClientState::CancellingTasks(tasks)) => self.commit_cancel(scenario, tasks),
            (Action::RollBack(_), state) => {
                if scenario.is(Broken::SilentAbort) {
                    ClientState::Done
                } else if let (ClientState::Pushing { .. }, Client::Push { node, .. }) =
                    (state, scenario.clients[c - 1])
                {
                    ClientState::Telling(vec![Event::Released { node }])
                } else {
                    ClientState::Telling(vec![Event::Run])
                }
            }
            (action, state) => unreachable!("{action:?} while {state:?}"),
        };
    }

    fn enter(&mut self, scenario: &Scenario, client: Client) -> ClientState {
        match client {
            Client::Push { node, .. } => {
                let state = self.tables.nodes[usize::from(node)].state;
                if state.has_ended() || self.tables.run.ended {
                    return ClientState::Done; // flow.push_steps raises
                }
                let early = self.is_before_own(node.into());
                ClientState::Pushing { held: state == NodeState::Waiting, early, age: self.tables.run.age }
            }
            Client::Cancel if self.tables.run.ended => ClientState::Done, // a NOTICE
            Client::Cancel => ClientState::CancellingNodes,
            Client::Restart => {
                self.tables.run.age += 1;
                for node in 0..scenario.nodes.len() {
                    reset_node(scenario, &mut self.tables, node);
                }
                self.reopen(scenario, vec![])
            }
            Client::Retry => self.retry(scenario),
        }
    }

    fn commit_push(&mut self, client: Client, held: bool, early: bool, age: u8) -> ClientState {
        let Client::Push { node, slot } = client else { return ClientState::Done };
        let place = step_places(node.into()).start + usize::from(slot);
        self.tables.tasks[place] = Some(Task { held, early, ..Task::new(age) });
        self.flush();
        let ids = vec![Id { place: place as u8, age }];
        ClientState::Telling(vec![Event::Released { node }, Event::Arrived { ids, node: Some(node) }])
    }

    /// `flow.end_runs` and `flow.end_run_tasks` become visible.
    fn commit_cancel(&mut self, scenario: &Scenario, tasks: Vec<(Id, bool)>) -> ClientState {
        let mut ended = 0;
        for node in self.tables.nodes.iter_mut().take(scenario.nodes.len()) {
            if !node.state.has_ended() {
                node.state = NodeState::Cancelled;
                ended += 1;
            }
        }
        let run = &mut self.tables.run;
        run.ended = true;
        run.finished += ended;
        run.failed += ended;
        for (id, was_running) in tasks {
            if let Some(task) = self.tables.task_mut(id) {
                task.ended = Some(Ended::Cancelled);
                task.consumed |= was_running;
                task.attempt += u8::from(was_running);
            }
        }
        self.flush();
        ClientState::Telling(vec![Event::Run])
    }

    /// `flow.retry_failed`: nodes that only their steps made fail go on with these, others begin anew.
    fn retry(&mut self, scenario: &Scenario) -> ClientState {
        let failed: Vec<usize> =
            (0..scenario.nodes.len()).filter(|n| self.tables.nodes[*n].state.is_failure()).collect();
        if failed.is_empty() {
            return ClientState::Done;
        }
        self.tables.run.age += 1;
        let below = |n: usize| scenario.nodes[n].parent.is_some_and(|p| failed.contains(&usize::from(p)));
        let mut again = Vec::new();
        for node in failed.iter().copied() {
            let own = self.tables.tasks[own_place(node)];
            let own_done = match scenario.nodes[node].empty {
                true => self.tables.nodes[node].opened,
                false => own.is_some_and(|t| t.ended == Some(Ended::Finished)),
            };
            let unfinished: Vec<Id> =
                self.tables.steps(node).filter(|(_, t)| t.ended != Some(Ended::Finished)).map(|(id, _)| id).collect();
            if below(node) || !own_done || unfinished.is_empty() {
                reset_node(scenario, &mut self.tables, node);
                continue;
            }
            self.tables.nodes[node].state = NodeState::Steps;
            for id in &unfinished {
                if let Some(task) = self.tables.task_mut(*id) {
                    let counted = task.consumed || scenario.is(Broken::StoppedNotCounted);
                    let attempt = task.attempt + u8::from(!counted);
                    let age = Task::new(task.age);
                    *task = Task { attempt, intention: task.intention + 1, parts: task.parts, ..age };
                }
            }
            again.push(Event::Arrived { ids: unfinished, node: Some(node as u8) });
        }
        self.reopen(scenario, again)
    }

    /// `flow.reopen_run`: what has ended is counted anew, what can start starts.
    fn reopen(&mut self, scenario: &Scenario, mut told: Vec<Event>) -> ClientState {
        let nodes = &self.tables.nodes[..scenario.nodes.len()];
        let count = |which: fn(&Node) -> bool| nodes.iter().filter(|n| which(n)).count() as u8;
        let (finished, failed) = (count(|n| n.state.has_ended()), count(|n| n.state.is_failure()));
        self.tables.run = crate::tables::Run { ended: false, finished, failed, age: self.tables.run.age };
        told.extend(start_run(scenario, &mut self.tables));
        told.push(Event::Run);
        self.flush();
        ClientState::Telling(told)
    }
}

/// `flow.reset_nodes`, of one node: it waits as if it had never run. The parents come first.
fn reset_node(scenario: &Scenario, tables: &mut Tables, node: usize) {
    tables.tasks[own_place(node)] = None;
    for place in step_places(node) {
        tables.tasks[place] = None;
    }
    let parent = scenario.nodes[node].parent.map(|p| tables.nodes[usize::from(p)].state);
    tables.nodes[node] = Node {
        state: NodeState::Waiting,
        parents_open: parent.is_some_and(|p| !p.has_ended()).into(),
        blocked: parent.is_some_and(NodeState::is_failure),
        opened: false,
    };
}

/// `flow.start_run`: opens what has no open parent; what is to be announced. The first node is never empty without steps.
pub fn start_run(scenario: &Scenario, tables: &mut Tables) -> Vec<Event> {
    let mut told = Vec::new();
    for (node, spec) in scenario.nodes.iter().enumerate() {
        let row = &mut tables.nodes[node];
        if row.state != NodeState::Waiting || row.parents_open > 0 {
            continue;
        }
        row.state = if spec.empty { NodeState::Steps } else { NodeState::Open };
        row.opened = true;
        let places =
            if spec.empty { step_places(node).take(spec.steps.into()).collect() } else { vec![own_place(node)] };
        let age = tables.run.age;
        let ids = places.into_iter().map(|place| {
            tables.tasks[place] = Some(Task::new(age));
            Id { place: place as u8, age }
        });
        told.push(Event::Arrived { ids: ids.collect(), node: spec.empty.then_some(node as u8) });
    }
    told
}
