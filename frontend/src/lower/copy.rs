//! `COPY` and `ADD`: to one file operation with an action for each source.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rbuild_solver::llb::Meta;
use rbuild_solver::llb::op::{
    ChmodOpt, Chown, FileAction, FileActionKind, FileCopy, FileInput, FileOp, MergeOp, Op,
    SourceOp, UserOpt,
};

use rbuild_store::pattern::{PatternSet, clean, has_wildcards};

use crate::ast::{AddInstruction, CopyInstruction, Header, Transfer};
use crate::diagnostic::Diagnostic;
use crate::expand::Expander;
use crate::gotext::quote;
use crate::lint::Finding;
use crate::lower::LowerError;
use crate::lower::build::{Build, MAIN_PATHS};
use crate::lower::draft::{Draft, Node};
use crate::lower::git_ref::{GitRef, Url, scheme_of};
use crate::lower::{mode, paths};
use crate::stages::{Command, StageId};

/// Name of a downloaded file whose address has none.
const UNNAMED: &str = "__unnamed__";

/// Permission bits of a here-document that becomes a file.
const INLINE_MODE: u32 = 0o644;

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Keyword {
    Copy,
    Add,
}

/// What `COPY` and `ADD` do, variables expanded.
struct Plan<'a> {
    header: &'a Header,
    keyword: Keyword,
    is_trigger: bool,
    /// The tree of sources that are paths.
    tree: Option<Node>,
    /// The set of paths that are used of it.
    used: usize,
    sources: Vec<String>,
    inline: Vec<(&'a str, Cow<'a, [u8]>)>,
    destination: String,
    chown: String,
    chmod: String,
    excludes: Vec<String>,
    link: bool,
    parents: bool,
    keep_git_dir: Option<bool>,
    checksum: String,
    unpack: Option<bool>,
}

impl Build<'_> {
    pub(crate) fn lower_copy(
        &mut self,
        id: StageId,
        copy: &CopyInstruction,
        command: &Command<'_>,
    ) -> Result<(), LowerError> {
        let mut plan = self.plan(id, &copy.header, &copy.transfer, command.is_trigger)?;
        plan.parents = copy.parents;
        match command.sources[..] {
            [source, ..] => {
                if !self.states[source.0].is_done() {
                    let name = copy.from.as_ref().map_or("", |it| &it.value);
                    let message = format!(
                        "cannot copy from stage {}, it needs to be defined before current stage {}",
                        quote(name),
                        quote(&self.stages[id].shown_name)
                    );
                    let span = copy.from.as_ref().map_or(copy.header.span, |it| it.span);
                    return Err(Diagnostic::new(span, message).into());
                }
                plan.tree = self.states[source.0].fs;
                plan.used = self.states[source.0].paths;
            }
            [] => self.use_main_context(&mut plan)?,
        }
        self.transfer(id, &plan)
    }

    pub(crate) fn lower_add(
        &mut self,
        id: StageId,
        add: &AddInstruction,
        command: &Command<'_>,
    ) -> Result<(), LowerError> {
        let mut plan = self.plan(id, &add.header, &add.transfer, command.is_trigger)?;
        plan.keyword = Keyword::Add;
        plan.keep_git_dir = add.keep_git_dir;
        plan.unpack = add.unpack;
        plan.checksum = self.expand_flag(id, &add.header, add.checksum.as_ref())?;
        self.use_main_context(&mut plan)?;
        self.transfer(id, &plan)
    }

    /// The main context is asked for only if a source is a path.
    fn use_main_context(&mut self, plan: &mut Plan<'_>) -> Result<(), LowerError> {
        if plan.sources.iter().any(|source| is_path(source)) {
            plan.tree = Some(self.main_context()?);
            self.warn_ignored(plan)?;
        }
        Ok(())
    }

    /// Warns of sources that the ignore file leaves out. Where it takes files back in, nothing can
    /// be said.
    fn warn_ignored(&mut self, plan: &Plan<'_>) -> Result<(), LowerError> {
        let excludes = self.main_excludes()?;
        let patterns = match PatternSet::new(excludes) {
            Ok(patterns) if !patterns.is_empty() && !patterns.has_exceptions() => patterns,
            // A pattern that is none is the context's to refuse.
            Ok(_) | Err(_) => return Ok(()),
        };
        let verb = if plan.keyword == Keyword::Add { "Add" } else { "Copy" };
        for source in plan.sources.iter().filter(|source| is_path(source)) {
            let cleaned = clean(source);
            let is_root = cleaned == "." || cleaned == "/";
            let is_all = |it: String| matches!(it.as_str(), "*" | "**" | "**/*");
            let is_ignored = if is_root {
                patterns.texts().any(is_all)
            } else {
                patterns.matches(cleaned.trim_start_matches('/').as_bytes())
            };
            if is_ignored {
                self.linter.report(plan.header, Finding::copy_ignored_file(verb, &cleaned));
            }
        }
        Ok(())
    }

    /// Expands what both instructions have.
    fn plan<'t>(
        &mut self,
        id: StageId,
        header: &'t Header,
        transfer: &'t Transfer,
        is_trigger: bool,
    ) -> Result<Plan<'t>, Diagnostic> {
        let chown = self.expand_flag(id, header, transfer.chown.as_ref())?;
        let chmod = self.expand_flag(id, header, transfer.chmod.as_ref())?;
        let mut sources = Vec::with_capacity(transfer.sources.len());
        for source in &transfer.sources {
            sources.push(self.expand(id, header, source)?);
        }
        let destination = self.expand(id, header, &transfer.destination)?;
        let mut inline: Vec<(&str, Cow<'_, [u8]>)> = Vec::with_capacity(transfer.inline.len());
        for file in &transfer.inline {
            let content = if file.expand {
                let text = String::from_utf8_lossy(&file.content);
                let expanded =
                    self.expand_with(id, header, Expander::for_heredoc(), &text, file.span)?;
                Cow::Owned(expanded.into_bytes())
            } else {
                Cow::Borrowed(&file.content[..])
            };
            inline.push((&file.name, content));
        }
        Ok(Plan {
            header,
            keyword: Keyword::Copy,
            is_trigger,
            tree: None,
            used: MAIN_PATHS,
            sources,
            inline,
            destination,
            chown,
            chmod,
            excludes: transfer.excludes.iter().map(|it| it.value.clone()).collect(),
            link: transfer.link,
            parents: false,
            keep_git_dir: None,
            checksum: String::new(),
            unpack: None,
        })
    }

    fn transfer(&mut self, id: StageId, plan: &Plan<'_>) -> Result<(), LowerError> {
        let refuse = |message: String| LowerError::from(Diagnostic::new(plan.header.span, message));
        let chmod = chmod(&plan.chmod).map_err(refuse)?;
        check_checksum(plan).map_err(refuse)?;
        let shown = self.shown_line(id, plan.header);
        let name = self.next_step(id, &shown, plan.is_trigger);
        let defaults = FileCopy {
            owner: (!plan.chown.is_empty()).then(|| owner(&plan.chown)),
            mode: chmod,
            exclude_patterns: plan.excludes.clone(),
            ..plain_copy("/", &paths::destination(self.states[id.0].dir(), &plan.destination))
        };
        let is_linked = plan.link && plan.chmod.is_empty();
        let base = if is_linked { None } else { self.states[id.0].fs };
        let mut file = FileBuilder::new(base);
        for source in &plan.sources {
            let source_meta = self.meta(id, plan.header, name.clone());
            let (tree, copy) = source_copy(&mut self.draft, plan, source, &defaults, source_meta)
                .map_err(refuse)?;
            file.copy(tree, copy);
            if is_path(source) {
                self.paths[plan.used].add(source);
            }
        }
        for (file_name, content) in &plan.inline {
            let path = paths::rooted(file_name);
            let tree = inline_file(&mut self.draft, &path, INLINE_MODE, content.to_vec());
            file.copy(Some(tree), FileCopy { src: path, ..defaults.clone() });
        }
        let meta = self.meta(id, plan.header, name);
        let copied = file.finish(&mut self.draft, meta.clone());
        let node = if is_linked && self.states[id.0].fs.is_some() {
            let name = self.step_name(id, &format!("LINK {shown}"), plan.is_trigger);
            let inputs: Vec<Node> = self.states[id.0].fs.into_iter().chain([copied]).collect();
            self.draft.add(Op::Merge(MergeOp), inputs, Meta { name, ..meta })
        } else {
            copied
        };
        self.state(id).fs = Some(node);
        self.commit(id, history_text(plan), true);
        Ok(())
    }
}

/// Whether a source is a path in a tree, as opposed to an address.
fn is_path(source: &str) -> bool {
    !is_http(source) && GitRef::parse(source).is_none()
}

/// Whether a source is an address of a file.
fn is_http(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://"))
        && GitRef::parse(source).is_none()
}

/// Where a source is, and how it is copied.
fn source_copy(
    draft: &mut Draft,
    plan: &Plan<'_>,
    source: &str,
    defaults: &FileCopy,
    meta: Meta,
) -> Result<(Option<Node>, FileCopy), String> {
    if let Some(git) = GitRef::parse(source) {
        let git = git?;
        if plan.keyword == Keyword::Copy {
            return Err("source can't be a git ref for COPY".to_owned());
        }
        let op = Op::Source(settle_git(plan, git)?.to_source());
        return Ok((Some(draft.add(op, Vec::new(), meta)), defaults.clone()));
    }
    if is_http(source) {
        if plan.keyword == Keyword::Copy {
            return Err("source can't be a URL for COPY".to_owned());
        }
        let (op, file) = http_source(source, &plan.checksum)?;
        let attempt_unpack = plan.unpack.unwrap_or(false);
        let copy = FileCopy { src: format!("/{file}"), attempt_unpack, ..defaults.clone() };
        return Ok((Some(draft.add(Op::Source(op), Vec::new(), meta)), copy));
    }
    Ok((plan.tree, path_copy(plan, source, defaults)))
}

/// A copy of a path or pattern.
fn path_copy(plan: &Plan<'_>, source: &str, defaults: &FileCopy) -> FileCopy {
    let mut copy = FileCopy {
        src: paths::rooted(source),
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack: plan.unpack.unwrap_or(plan.keyword == Keyword::Add),
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..defaults.clone()
    };
    if plan.parents {
        // What stands before a pivot point is not part of the copied path.
        let (parent, pattern) = source.split_once("/./").unwrap_or(("/", source));
        let pattern = paths::rooted(pattern);
        copy.src = paths::rooted(parent);
        if !has_wildcards(parent) && !has_wildcards(&pattern) {
            copy.required_paths = vec![paths::join(&copy.src, &pattern)];
        }
        copy.include_patterns = vec![pattern.trim_start_matches('/').to_owned()];
    }
    copy
}

/// Flags of `ADD` and the query of the address must agree.
fn settle_git(plan: &Plan<'_>, mut git: GitRef) -> Result<GitRef, String> {
    if let (Some(flag), Some(query)) = (plan.keep_git_dir, git.keep_git_dir)
        && flag != query
    {
        return Err("inconsistent keep-git-dir configuration".to_owned());
    }
    git.keep_git_dir = git.keep_git_dir.or(plan.keep_git_dir);
    let (flag, query) = (&plan.checksum, &git.checksum);
    if !flag.is_empty() && !query.is_empty() && flag != query {
        return Err(format!("checksum mismatch {} != {}", quote(flag), quote(query)));
    }
    if query.is_empty() {
        git.checksum.clone_from(flag);
    }
    Ok(git)
}

/// The source of an address, and the name of the file in it.
pub(crate) fn http_source(address: &str, checksum: &str) -> Result<(SourceOp, String), String> {
    let path = Url::parse(address).map(|url| clean(&url.path)).unwrap_or_default();
    let file = match paths::base_name(&path) {
        "." | "/" | ".." => UNNAMED,
        name => name,
    };
    let mut attrs = BTreeMap::from([("http.filename".to_owned(), file.to_owned())]);
    if !checksum.is_empty() {
        check_digest(checksum)?;
        attrs.insert("http.checksum".to_owned(), checksum.to_owned());
    }
    let (scheme, rest) = scheme_of(address).unwrap_or_default();
    let identifier = format!("{scheme}://{rest}");
    Ok((SourceOp { identifier, attrs, platform: None }, file.to_owned()))
}

/// A digest: algorithm, colon, hex digits of the algorithm's length.
fn check_digest(text: &str) -> Result<(), String> {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return Err(format!("invalid checksum digest format: {text}"));
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(format!("unsupported digest algorithm: {algorithm}")),
    };
    if hex.len() != length {
        return Err(format!("invalid checksum digest length: {text}"));
    }
    if !hex.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("invalid checksum digest format: {text}"));
    }
    Ok(())
}

fn check_checksum(plan: &Plan<'_>) -> Result<(), String> {
    if plan.checksum.is_empty() {
        return Ok(());
    }
    match &plan.sources[..] {
        [source] if is_path(source) => Err("checksum requires HTTP(S) or Git sources".to_owned()),
        [_] => Ok(()),
        _ => Err("checksum can't be specified for multiple sources".to_owned()),
    }
}

/// The value of `--chmod`.
fn chmod(text: &str) -> Result<Option<ChmodOpt>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.bytes().all(|it| it.is_ascii_digit())
        && let Ok(bits) = u32::from_str_radix(text, 8)
        && bits <= mode::MAX_BITS
    {
        return Ok(Some(ChmodOpt::Bits(bits)));
    }
    if mode::is_symbolic(text) {
        return Ok(Some(ChmodOpt::Symbolic(text.to_owned())));
    }
    Err(format!(
        "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
    ))
}

/// The value of `--chown` and `USER`: names stay names, they are looked up when the step runs.
pub(crate) fn owner(text: &str) -> Chown {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let parse = |name: &str| match name {
        "" | "root" => UserOpt::Id(0),
        _ => match name.parse::<i32>() {
            Ok(number) => UserOpt::Id(number.cast_unsigned()),
            Err(_) => UserOpt::Name(name.to_owned()),
        },
    };
    Chown { user: Some(parse(user)), group: group.map(parse) }
}

/// The text of the instruction in the history.
fn history_text(plan: &Plan<'_>) -> String {
    let mut text = String::from(if plan.keyword == Keyword::Add { "ADD" } else { "COPY" });
    if plan.parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [(" --chown=", &plan.chown), (" --chmod=", &plan.chmod)] {
        if !value.is_empty() {
            text.push_str(flag);
            text.push_str(value);
        }
    }
    for source in &plan.sources {
        text.push(' ');
        text.push_str(source);
    }
    for (name, _) in &plan.inline {
        text.push_str(" <<");
        text.push_str(name);
    }
    format!("{text} {} # buildkit", plan.destination)
}

/// A copy without options, but missing parents of the destination are made.
pub(crate) fn plain_copy(src: &str, dest: &str) -> FileCopy {
    FileCopy {
        src: src.to_owned(),
        dest: dest.to_owned(),
        owner: None,
        mode: None,
        follow_symlink: false,
        dir_copy_contents: false,
        attempt_unpack: false,
        create_dest_path: true,
        allow_wildcard: false,
        allow_empty_wildcard: false,
        timestamp: None,
        include_patterns: Vec::new(),
        exclude_patterns: Vec::new(),
        always_replace_existing_dest_paths: false,
        required_paths: Vec::new(),
    }
}

/// A tree with one file.
pub(crate) fn inline_file(draft: &mut Draft, path: &str, mode: u32, data: Vec<u8>) -> Node {
    let kind =
        FileActionKind::Mkfile { path: path.to_owned(), mode, data, owner: None, timestamp: None };
    let action = FileAction { input: FileInput::Scratch, secondary: None, output: Some(0), kind };
    let name = "[internal] preparing inline document".to_owned();
    let op = FileOp { actions: vec![action], platform: None };
    draft.add(Op::File(op), Vec::new(), Meta { name, ..Meta::default() })
}

/// Copies, one after the other, into a tree.
struct FileBuilder {
    inputs: Vec<Node>,
    start: FileInput,
    actions: Vec<FileAction>,
}

impl FileBuilder {
    fn new(base: Option<Node>) -> Self {
        let start = base.map_or(FileInput::Scratch, |_| FileInput::Input(0));
        Self { inputs: base.into_iter().collect(), start, actions: Vec::new() }
    }

    fn copy(&mut self, tree: Option<Node>, copy: FileCopy) {
        let secondary = tree.map_or(FileInput::Scratch, |tree| {
            let known = self.inputs.iter().position(|it| *it == tree);
            FileInput::Input(known.unwrap_or_else(|| {
                self.inputs.push(tree);
                self.inputs.len() - 1
            }))
        });
        let input = self.actions.len().checked_sub(1).map_or(self.start, FileInput::Action);
        if let Some(last) = self.actions.last_mut() {
            last.output = None;
        }
        self.actions.push(FileAction {
            input,
            secondary: Some(secondary),
            output: Some(0),
            kind: FileActionKind::Copy(copy),
        });
    }

    fn finish(self, draft: &mut Draft, meta: Meta) -> Node {
        draft.add(Op::File(FileOp { actions: self.actions, platform: None }), self.inputs, meta)
    }
}
