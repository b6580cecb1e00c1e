//! The nearest known name of a misspelt one.

/// Names that differ by this many edits are not meant.
const TOO_FAR: usize = 3;

/// Longer names are not compared: nobody misspells them.
const MAX_COMPARED_CHARS: usize = 64;

/// The nearest of `known`, if one is near and none is equal; of equally near ones the first.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    let mut best_distance = TOO_FAR;
    // A variable can have an empty name; nobody means it.
    for candidate in known.into_iter().filter(|it| !it.is_empty()) {
        if candidate == name {
            return None;
        }
        let distance = distance(name, candidate);
        if distance < best_distance {
            best = Some(candidate);
            best_distance = distance;
        }
    }
    best
}

/// ` (did you mean NAME?)`, or nothing.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or(String::new(), |it| format!(" (did you mean {it}?)"))
}

/// Number of characters that must be added, removed or changed.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(MAX_COMPARED_CHARS + 1).collect();
    let right: Vec<char> = right.chars().take(MAX_COMPARED_CHARS + 1).collect();
    if left.len().max(right.len()) > MAX_COMPARED_CHARS {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest() {
        assert_eq!(nearest("RUNN", ["COPY", "RUN"]), Some("RUN"));
        assert_eq!(nearest("PAHT", ["PATH"]), Some("PATH"));
        assert_eq!(nearest("F", ["A", "PATH"]), Some("A"));
        assert_eq!(nearest("RUN", ["RUN", "RUNS"]), None);
        assert_eq!(nearest("A", [""]), None);
        assert_eq!(nearest("undefined_thing", ["PATH", "A"]), None);
        assert_eq!(did_you_mean("form", ["from"]), " (did you mean from?)");
    }
}
