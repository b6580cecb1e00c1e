//! Here-documents: the mark `<<EOF` in a line.

/// What a mark says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mark {
    /// The delimiter without quotes.
    pub name: String,
    /// Whether no part of the delimiter is quoted.
    pub expand: bool,
    /// `<<-`.
    pub chomp: bool,
    /// Number before `<<`, or 0.
    pub descriptor: u64,
}

/// Reads a word that is a mark: digits, `<<`, perhaps `-`, and one word.
pub fn parse_mark(word: &str) -> Option<Mark> {
    use crate::expand::{Expander, Quotes, Unset};

    let digits = word.len() - word.trim_start_matches(|it: char| it.is_ascii_digit()).len();
    let descriptor = word[..digits].parse().unwrap_or(0);
    let rest = word[digits..].strip_prefix("<<")?;
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    // A quoted delimiter shows in the difference between reading it with and without its quotes.
    let plain = Expander { unset: Unset::Keep, ..Expander::new('\\') };
    let quoted = Expander { quotes: Quotes::Keep, ..plain };
    let names = plain.expand(rest, &|_| None).ok()?.words;
    let raw_names = quoted.expand(rest, &|_| None).ok()?.words;
    let [name] = &names[..] else { return None };
    let [raw_name] = &raw_names[..] else { return None };
    let n_quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(Mark {
        name: name.clone(),
        expand: n_quotes(name) == n_quotes(raw_name),
        chomp,
        descriptor,
    })
}

/// The marks of a logical line. A line that the shell lexer cannot read has none.
pub fn marks_of_line(line: &str) -> Vec<Mark> {
    use crate::expand::{Expander, Quotes, Unset};

    let lexer = Expander {
        quotes: Quotes::Keep,
        raw_escapes: true,
        unset: Unset::Keep,
        ..Expander::new('\\')
    };
    let Ok(expansion) = lexer.expand(line, &|_| None) else { return Vec::new() };
    expansion.words.iter().filter_map(|word| parse_mark(word)).collect()
}

/// Removes the tabs at the beginning of each line.
pub fn chomp(content: &[u8]) -> Vec<u8> {
    let mut chomped = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|&byte| byte == b'\n') {
        let n_tabs = line.iter().take_while(|&&byte| byte == b'\t').count();
        chomped.extend_from_slice(&line[n_tabs..]);
    }
    chomped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, want: &str) {
        let got = parse_mark(word).map_or("-".to_owned(), |mark| {
            let Mark { name, expand, chomp, descriptor } = mark;
            format!("{name} expand={expand} chomp={chomp} fd={descriptor}")
        });
        assert_eq!(got, want, "{word}");
    }

    #[test]
    fn reads_marks() {
        check("<<EOF", "EOF expand=true chomp=false fd=0");
        check("<<-EOF", "EOF expand=true chomp=true fd=0");
        check("3<< EOF", "EOF expand=true chomp=false fd=3");
        check("<<'EOF'", "EOF expand=false chomp=false fd=0");
        check("<<\"EOF 2\"", "EOF 2 expand=false chomp=false fd=0");
        check("<<E'O'F", "EOF expand=false chomp=false fd=0");
        check("<<$EOF", "$EOF expand=true chomp=false fd=0");
        check("<<<EOF", "-");
        check("<<", "-");
        check("<<''", "-");
        check("<<EOF more", "-");
        check("a<<EOF", "-");
    }

    #[test]
    fn finds_the_marks_of_a_line() {
        let names =
            |line: &str| marks_of_line(line).into_iter().map(|mark| mark.name).collect::<Vec<_>>();
        assert_eq!(names("RUN cat << A >/a && cat <<-\"B\" >/b"), ["A", "B"]);
        assert_eq!(names("RUN cat <<< word"), [""; 0]);
        assert_eq!(names("RUN echo \"<<EOF\""), [""; 0]);
        assert_eq!(names("RUN echo it's <<EOF"), [""; 0]);
    }

    #[test]
    fn removes_leading_tabs() {
        assert_eq!(chomp(b"\t\ta\tb\n\n \tc\n\t"), b"a\tb\n\n \tc\n");
    }
}
