//! Which step may run next: a pure state machine, without threads, clocks or disks.
//!
//! ```text
//! Idle --want--> Waiting{missing} --last input done--> Ready --start_next--> Running --finish--> Done | Failed
//! ```
//!
//! Each vertex is in exactly one state; all transitions go through [`Scheduler`]. A vertex that
//! was found in the cache is `Done` from the start and needs none of its inputs.

use std::collections::VecDeque;

use crate::llb::{Graph, VertexId};

/// State of one vertex.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Nobody needs it.
    Idle,
    /// That many of its inputs are not done.
    Waiting {
        /// How many.
        missing: usize,
    },
    /// All inputs are done.
    Ready,
    /// Handed out.
    Running,
    /// Its result is there.
    Done,
    /// It failed, and what needs it will not run.
    Failed,
}

/// The states of a graph's vertices.
#[derive(Debug)]
pub struct Scheduler {
    state: Vec<State>,
    users: Vec<Vec<VertexId>>,
    ready: VecDeque<VertexId>,
}

impl Scheduler {
    /// `wanted` must run, `found` have results already; inputs of `wanted` are in either list.
    ///
    /// # Panics
    ///
    /// If an input of a wanted vertex is in neither list.
    pub fn new(graph: &Graph, wanted: &[VertexId], found: &[VertexId]) -> Self {
        let mut it = Self {
            state: vec![State::Idle; graph.len()],
            users: vec![Vec::new(); graph.len()],
            ready: VecDeque::new(),
        };
        for id in found {
            it.state[id.index()] = State::Done;
        }
        for &id in wanted {
            it.state[id.index()] = State::Waiting { missing: 0 };
        }
        for &id in wanted {
            let mut inputs: Vec<VertexId> =
                graph[id].inputs.iter().map(|edge| edge.vertex).collect();
            inputs.sort_unstable();
            inputs.dedup();
            let mut missing = 0;
            for input in inputs {
                match it.state[input.index()] {
                    State::Done => {}
                    State::Waiting { .. } | State::Ready => {
                        missing += 1;
                        it.users[input.index()].push(id);
                    }
                    State::Idle | State::Running | State::Failed => {
                        panic!("an input that nobody wants")
                    }
                }
            }
            it.settle(id, missing);
        }
        it
    }

    fn settle(&mut self, id: VertexId, missing: usize) {
        self.state[id.index()] = if missing == 0 {
            self.ready.push_back(id);
            State::Ready
        } else {
            State::Waiting { missing }
        };
    }

    /// The next vertex to run, if one is ready. The caller must report its end.
    pub fn start_next(&mut self) -> Option<VertexId> {
        let id = self.ready.pop_front()?;
        self.state[id.index()] = State::Running;
        Some(id)
    }

    /// Reports the end of a vertex handed out by [`Self::start_next`].
    ///
    /// # Panics
    ///
    /// If it was not handed out.
    pub fn finish(&mut self, id: VertexId, succeeded: bool) {
        assert_eq!(self.state[id.index()], State::Running, "{id:?} was not handed out");
        if !succeeded {
            self.state[id.index()] = State::Failed;
            return;
        }
        self.state[id.index()] = State::Done;
        for user in std::mem::take(&mut self.users[id.index()]) {
            if let State::Waiting { missing } = self.state[user.index()] {
                self.settle(user, missing - 1);
            }
        }
    }

    /// State of a vertex.
    pub fn state(&self, id: VertexId) -> State {
        self.state[id.index()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::llb::op::{MergeOp, Op, SourceOp};
    use crate::llb::{Edge, Meta};

    fn graph(rows: &[Vec<usize>]) -> (Graph, Vec<VertexId>) {
        let mut graph = Graph::default();
        let mut ids: Vec<VertexId> = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            let inputs: Vec<Edge> = if ids.is_empty() {
                vec![]
            } else {
                row.iter().map(|it| Edge { vertex: ids[it % ids.len()], output: 0 }).collect()
            };
            let source = SourceOp {
                identifier: format!("local://{number}"),
                attrs: BTreeMap::new(),
                platform: None,
            };
            let source = graph.add_edge(Op::Source(source), &[], Meta::default());
            let inputs: Vec<Edge> = inputs.into_iter().chain([source]).collect();
            ids.push(graph.add(Op::Merge(MergeOp), &inputs, Meta::default()));
        }
        (graph, ids)
    }

    proptest! {
        /// Whatever the order in which steps end: each runs at most once, after all of its
        /// inputs, and none is lost.
        #[test]
        fn runs_everything_once_and_in_order(
            rows in vec(vec(0..64usize, 0..4), 1..40),
            picks in vec(any::<Index>(), 200),
        ) {
            let (graph, ids) = graph(&rows);
            let target = *ids.last().unwrap();
            let wanted = graph.needed(&[target]);
            let mut scheduler = Scheduler::new(&graph, &wanted, &[]);
            let (mut running, mut order) = (Vec::new(), Vec::new());
            for pick in picks {
                while let Some(id) = scheduler.start_next() {
                    prop_assert!(graph[id].inputs.iter().all(|it| order.contains(&it.vertex)));
                    running.push(id);
                }
                if running.is_empty() {
                    break;
                }
                let id = running.swap_remove(pick.index(running.len()));
                scheduler.finish(id, true);
                prop_assert!(!order.contains(&id));
                order.push(id);
            }
            prop_assert_eq!(scheduler.state(target), State::Done);
        }
    }

    #[test]
    fn a_failure_stops_its_users_only() {
        let (graph, ids) = graph(&[vec![], vec![0]]);
        let wanted = graph.needed(&[ids[1]]);
        let found: Vec<VertexId> = wanted.iter().copied().filter(|id| !ids.contains(id)).collect();
        let mut scheduler = Scheduler::new(&graph, &ids, &found);
        let first = scheduler.start_next().unwrap();
        scheduler.finish(first, false);
        assert_eq!(scheduler.start_next(), None);
        assert_eq!(scheduler.state(ids[1]), State::Waiting { missing: 1 });
    }
}
