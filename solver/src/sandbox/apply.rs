//! Carries out the steps of a plan, in order.
//!
//! One call per step and no decision: what to do is in the plan, how to do it in [`Kernel`].
//! There is no undo: the namespaces die with the process.

use super::plan::Step;

/// What carries a step out: the real kernel, or a recorder in tests.
pub trait Kernel {
    /// Carries out one step.
    ///
    /// # Errors
    ///
    /// Why it could not be done.
    fn perform(&mut self, step: &Step) -> Result<(), KernelError>;
}

/// Why a step could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A path that the Dockerfile names is not there.
    #[error("\"{0}\": not found")]
    NotFound(String),
    /// A mount point cannot be made or used.
    #[error("cannot mount on `{at}`")]
    MountPoint {
        /// Where.
        at: String,
        /// Why.
        source: std::io::Error,
    },
    /// A mount point is a symbolic link that leads nowhere.
    #[error("cannot mount on `{at}`: it is a symbolic link whose target does not exist")]
    Dangling {
        /// Where.
        at: String,
    },
    /// The kernel refused a call.
    #[error("{call} failed{detail}")]
    Call {
        /// Which, by its manual page or with its object.
        call: &'static str,
        /// What the kernel said beside the number, with a colon before it; often empty.
        detail: String,
        /// The number.
        source: std::io::Error,
    },
    /// The plan names a descriptor or a mount that is not there.
    #[error("the plan of the step is broken: {0}")]
    Plan(&'static str),
}

/// Which step could not be carried out, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the step: {step}")]
pub struct ApplyError {
    /// Its number.
    pub index: usize,
    /// The step, as text.
    pub step: String,
    /// Why.
    pub source: KernelError,
}

/// Carries out `steps` in order and stops at the first failure.
///
/// # Errors
///
/// Names the step that failed.
pub fn apply(steps: &[Step], kernel: &mut dyn Kernel) -> Result<(), ApplyError> {
    for (index, step) in steps.iter().enumerate() {
        kernel.perform(step).map_err(|source| ApplyError {
            index,
            step: step.to_string(),
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Litter, NewFs, Restrict};
    use super::*;

    /// Writes down what it is asked to do, and fails at one step.
    struct Recorder {
        done: Vec<String>,
        fail_at: Option<usize>,
    }

    impl Kernel for Recorder {
        fn perform(&mut self, step: &Step) -> Result<(), KernelError> {
            if self.fail_at == Some(self.done.len()) {
                return Err(KernelError::NotFound("/x".into()));
            }
            self.done.push(step.to_string());
            Ok(())
        }
    }

    #[test]
    fn stops_where_the_kernel_does() {
        let at = "/dev".to_owned();
        let fs = NewFs::Tmpfs { size: 1, mode: 0o755 };
        let plan = [
            Step::Directory { from: "/tree".into() },
            Step::Root,
            Step::Mount { fs, at, restrict: Restrict::NOTHING, litter: Litter::Keep },
            Step::PivotRoot,
        ];
        let text: Vec<String> = plan.iter().map(ToString::to_string).collect();
        for fail_at in 0..plan.len() {
            let mut kernel = Recorder { done: Vec::new(), fail_at: Some(fail_at) };
            let error = apply(&plan, &mut kernel).unwrap_err();
            assert_eq!((error.index, &error.step), (fail_at, &text[fail_at]));
            assert_eq!(kernel.done, text[..fail_at]);
        }
        let mut kernel = Recorder { done: Vec::new(), fail_at: None };
        apply(&plan, &mut kernel).unwrap();
        assert_eq!(kernel.done, text);
    }
}
