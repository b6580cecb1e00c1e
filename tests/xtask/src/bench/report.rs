//! From samples to a table of medians and ratios, and to JSON.

use std::fmt::Write as _;
use std::path::Path;

use super::builders::Builder;
use super::workloads::Workload;
use crate::run::{Outcome, write};

/// One figure of one run.
#[derive(Debug)]
pub(super) struct Sample {
    workload: &'static str,
    measure: &'static str,
    builder: &'static str,
    value: f64,
}

impl Sample {
    pub(super) fn new(
        workload: &'static str,
        measure: &'static str,
        builder: &'static str,
        value: f64,
    ) -> Self {
        Self { workload, measure, builder, value }
    }
}

/// Prints the table: a line for each measure; medians, and how many times better rbuild's is than each peer's.
pub(super) fn print(builders: &[Builder], workloads: &[&'static Workload], samples: &[Sample]) {
    let names: Vec<&str> = builders.iter().map(Builder::name).collect();
    println!("\n{}", table(&names, workloads, samples));
}

fn table(names: &[&'static str], workloads: &[&'static Workload], samples: &[Sample]) -> String {
    let mut text = String::from("| workload | measure |");
    for name in names {
        let ratio = if *name == "rbuild" { "" } else { " (ratio)" };
        write!(text, " {name}{ratio} |").expect("writing to memory");
    }
    text += "\n|---|---|";
    text += &"---:|".repeat(names.len());
    text.push('\n');
    for workload in workloads {
        for measure in workload.measures {
            write!(text, "| {} {} | {measure} |", workload.name, workload.title)
                .expect("writing to memory");
            let own = median(&values(samples, workload.name, measure, "rbuild"));
            for name in names {
                let cell = match (median(&values(samples, workload.name, measure, name)), own) {
                    (None, _) => "-".to_owned(),
                    (Some(value), Some(own)) if *name != "rbuild" => {
                        let ahead = if measure.ends_with("/s") { own / value } else { value / own };
                        format!("{value:.3} ({ahead:.1}x)")
                    }
                    (Some(value), _) => format!("{value:.3}"),
                };
                write!(text, " {cell} |").expect("writing to memory");
            }
            text.push('\n');
        }
    }
    text
}

fn values(samples: &[Sample], workload: &str, measure: &str, builder: &str) -> Vec<f64> {
    let own = samples
        .iter()
        .filter(|one| one.workload == workload && one.measure == measure && one.builder == builder);
    own.map(|sample| sample.value).collect()
}

/// The middle value; the mean of the two in the middle of an even number.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Writes every sample, one object a line of an array.
pub(super) fn write_json(path: &Path, samples: &[Sample]) -> Outcome {
    let lines: Vec<String> = samples
        .iter()
        .map(|one| {
            format!(
                r#"{{"workload":"{}","measure":"{}","builder":"{}","value":{:.6}}}"#,
                one.workload, one.measure, one.builder, one.value
            )
        })
        .collect();
    write(path, format!("[\n{}\n]\n", lines.join(",\n")))?;
    println!("every figure: {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn of_rates_the_larger_one_is_better() {
        let workload = &super::super::workloads::WORKLOADS[5];
        let measure = workload.measures[0];
        let samples = [
            Sample::new(workload.name, measure, "rbuild", 150.0),
            Sample::new(workload.name, measure, "buildah", 75.0),
        ];
        let text = table(&["rbuild", "buildah"], &[workload], &samples);
        assert!(text.contains("| 150.000 | 75.000 (2.0x) |"), "{text}");
    }

    #[test]
    fn peers_are_shown_as_multiples() {
        let workload = &super::super::workloads::WORKLOADS[2];
        let measure = workload.measures[0];
        let samples = [
            Sample::new(workload.name, measure, "rbuild", 1.0),
            Sample::new(workload.name, measure, "buildah", 3.0),
        ];
        let text = table(&["rbuild", "buildah"], &[workload], &samples);
        assert!(text.contains("| 1.000 | 3.000 (3.0x) |"), "{text}");
    }
}
