//! The tree of a Dockerfile: one struct for each instruction.
//!
//! What always holds: the syntax is valid (number of arguments, names of flags, form of values
//! that do not depend on variables); variables are *not* expanded, names of stages not resolved.
//! Every [`Word`] is the text that variable expansion takes: quotes and escapes are still in it,
//! except in values of flags, where the flag syntax itself removes them (as BuildKit does).
//!
//! The printed tree (`rbuild debug ast`) is made by [`crate::dump::dump`].

use std::time::Duration;

use crate::text::{Span, Word};

pub use crate::directives::Directives;

/// A whole Dockerfile.
///
/// There is at least one `FROM`; only `ARG` stands before the first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dockerfile {
    /// Directives at the top.
    pub directives: Directives,
    /// The instructions in order.
    pub instructions: Vec<Instruction>,
}

/// What each instruction has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Header {
    /// The keyword as written: `RUN`, `run`.
    pub keyword: Word,
    /// From the keyword to the end of the last line, bodies of here-documents included.
    pub span: Span,
    /// The logical line: continuation lines joined, comments between them removed, trimmed; without
    /// bodies of here-documents. What progress and history show.
    pub original: String,
    /// Text of the comments above, without `#`, trimmed: descriptions, `check=` of one instruction.
    pub comments: Vec<String>,
    /// Last line of the logical line, bodies of here-documents not counted, if there is an empty line
    /// among its continuation lines.
    pub empty_continuation: Option<u32>,
}

/// One instruction.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "each variant is the instruction of that name")]
pub enum Instruction {
    From(FromInstruction),
    Arg(ArgInstruction),
    Run(RunInstruction),
    Copy(CopyInstruction),
    Add(AddInstruction),
    Env(EnvInstruction),
    Label(LabelInstruction),
    Expose(ExposeInstruction),
    Volume(VolumeInstruction),
    User(UserInstruction),
    Workdir(WorkdirInstruction),
    Cmd(CmdInstruction),
    Entrypoint(EntrypointInstruction),
    Healthcheck(HealthcheckInstruction),
    Stopsignal(StopsignalInstruction),
    Shell(ShellInstruction),
    Onbuild(OnbuildInstruction),
    Maintainer(MaintainerInstruction),
}

impl Instruction {
    /// What each instruction has.
    pub fn header(&self) -> &Header {
        match self {
            Self::From(it) => &it.header,
            Self::Arg(it) => &it.header,
            Self::Run(it) => &it.header,
            Self::Copy(it) => &it.header,
            Self::Add(it) => &it.header,
            Self::Env(it) => &it.header,
            Self::Label(it) => &it.header,
            Self::Expose(it) => &it.header,
            Self::Volume(it) => &it.header,
            Self::User(it) => &it.header,
            Self::Workdir(it) => &it.header,
            Self::Cmd(it) => &it.header,
            Self::Entrypoint(it) => &it.header,
            Self::Healthcheck(it) => &it.header,
            Self::Stopsignal(it) => &it.header,
            Self::Shell(it) => &it.header,
            Self::Onbuild(it) => &it.header,
            Self::Maintainer(it) => &it.header,
        }
    }
}

/// `FROM [--platform=P] image [AS name]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FromInstruction {
    /// What each instruction has.
    pub header: Header,
    /// `--platform`; an empty value is the same as none.
    pub platform: Option<Word>,
    /// Image, stage or `scratch`.
    pub image: Word,
    /// `AS name`.
    pub alias: Option<Alias>,
    /// Description from the comments above: what follows the name.
    pub doc: Option<String>,
}

/// The `AS name` of a stage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Alias {
    /// The keyword as written: `AS`, `as`.
    pub keyword: Word,
    /// The name in lower case: `^[a-z][a-z0-9-_.]*$`.
    pub name: String,
    /// The name as written.
    pub written: Word,
}

/// `ARG name[=default]...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ArgInstruction {
    /// What each instruction has.
    pub header: Header,
    /// At least one.
    pub declarations: Vec<ArgDeclaration>,
}

/// One name of an `ARG`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ArgDeclaration {
    /// The name; not empty. It is expanded, too.
    pub name: Word,
    /// The default.
    pub value: Option<Word>,
    /// Description from the comments above: what follows the name.
    pub doc: Option<String>,
}

/// A command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommandLine {
    /// Text for the shell of the stage; may be empty.
    Shell(Word),
    /// JSON form; may be empty.
    Exec(Vec<String>),
}

/// `RUN [flags] command`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunInstruction {
    /// What each instruction has.
    pub header: Header,
    /// Values of `--mount`, unexpanded and checked only as far as that allows: their meaning is
    /// given by [`crate::parse::mount::parse`].
    pub mounts: Vec<Word>,
    /// `--network`.
    pub network: Option<RunNetwork>,
    /// `--security`.
    pub security: Option<RunSecurity>,
    /// `--device`.
    pub devices: Vec<Device>,
    /// The command.
    pub command: CommandLine,
    /// Here-documents of the command, in the order of their marks; none in JSON form.
    pub heredocs: Vec<Heredoc>,
}

impl RunInstruction {
    /// The here-document that is the whole command (`RUN <<EOF`), as opposed to one that is input
    /// of a command (`RUN cat <<EOF`).
    pub fn script(&self) -> Option<&Heredoc> {
        match &self.command {
            CommandLine::Shell(line) => {
                crate::heredoc::parse_mark(&line.value)?;
                self.heredocs.first()
            }
            CommandLine::Exec(_) => None,
        }
    }
}

/// `RUN --network`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the values of the flag")]
pub enum RunNetwork {
    Default,
    None,
    Host,
}

/// `RUN --security`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the values of the flag")]
pub enum RunSecurity {
    Sandbox,
    Insecure,
}

/// `RUN --device`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// `vendor.com/class=name`.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
}

/// A here-document: `<<EOF` and the lines up to `EOF`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heredoc {
    /// Its delimiter; for `COPY` and `ADD` the name of the file.
    pub name: String,
    /// Whether variables are expanded in it: no part of the delimiter is quoted. `RUN` leaves that
    /// to the shell.
    pub expand: bool,
    /// `<<-`: leading tabs are removed.
    pub chomp: bool,
    /// Number before `<<`; 0 where there is none.
    pub descriptor: u64,
    /// The lines as in the file, line ends and leading tabs included.
    pub content: Vec<u8>,
    /// Where the lines are.
    pub span: Span,
}

impl Heredoc {
    /// The content without leading tabs if it was marked with `<<-`.
    pub fn chomped(&self) -> Vec<u8> {
        if self.chomp { crate::heredoc::chomp(&self.content) } else { self.content.clone() }
    }
}

/// Sources and destination of `COPY` and `ADD`, and the flags that both have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transfer {
    /// Sources that are paths, patterns, addresses; with `inline` at least one.
    pub sources: Vec<Word>,
    /// Sources that are here-documents. In JSON form the contents are empty, as in BuildKit.
    pub inline: Vec<InlineFile>,
    /// Destination.
    pub destination: Word,
    /// `--chown`; an empty value is the same as none (so for all flags with a text).
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--exclude`, several.
    pub excludes: Vec<Word>,
}

/// A file that is written in the Dockerfile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InlineFile {
    /// Name of the file: the delimiter.
    pub name: String,
    /// Content, leading tabs removed where marked with `<<-`.
    pub content: Vec<u8>,
    /// Whether variables are expanded in the content.
    pub expand: bool,
    /// Where its mark stands.
    pub span: Span,
}

/// `COPY [flags] source... destination`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CopyInstruction {
    /// What each instruction has.
    pub header: Header,
    /// Sources, destination and common flags.
    pub transfer: Transfer,
    /// `--from`.
    pub from: Option<Word>,
    /// `--parents`.
    pub parents: bool,
}

/// `ADD [flags] source... destination`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddInstruction {
    /// What each instruction has.
    pub header: Header,
    /// Sources, destination and common flags.
    pub transfer: Transfer,
    /// `--keep-git-dir`, if given.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`.
    pub checksum: Option<Word>,
    /// `--unpack`, if given.
    pub unpack: Option<bool>,
}

/// A name and a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyValue {
    /// The name; not empty. It is expanded, too.
    pub key: Word,
    /// The value.
    pub value: Word,
    /// `ENV key value`: the old form without `=`, which has one pair only.
    pub legacy: bool,
}

/// `ENV key=value...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EnvInstruction {
    /// What each instruction has.
    pub header: Header,
    /// At least one.
    pub pairs: Vec<KeyValue>,
}

/// `LABEL key=value...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LabelInstruction {
    /// What each instruction has.
    pub header: Header,
    /// At least one.
    pub pairs: Vec<KeyValue>,
}

/// `EXPOSE port[/protocol]...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExposeInstruction {
    /// What each instruction has.
    pub header: Header,
    /// At least one, in bytewise order. One word can expand to several ports.
    pub ports: Vec<Word>,
}

/// `VOLUME path...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeInstruction {
    /// What each instruction has.
    pub header: Header,
    /// At least one; none is empty.
    pub volumes: Vec<Word>,
}

/// `USER user[:group]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserInstruction {
    /// What each instruction has.
    pub header: Header,
    /// The rest of the line.
    pub user: Word,
}

/// `WORKDIR path`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkdirInstruction {
    /// What each instruction has.
    pub header: Header,
    /// The rest of the line.
    pub path: Word,
}

/// `CMD command`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CmdInstruction {
    /// What each instruction has.
    pub header: Header,
    /// The command.
    pub command: CommandLine,
}

/// `ENTRYPOINT command`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EntrypointInstruction {
    /// What each instruction has.
    pub header: Header,
    /// The command.
    pub command: CommandLine,
}

/// `HEALTHCHECK NONE` or `HEALTHCHECK [flags] CMD command`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthcheckInstruction {
    /// What each instruction has.
    pub header: Header,
    /// The check; none means `NONE`.
    pub check: Option<Healthcheck>,
}

/// A health check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Healthcheck {
    /// The command; not empty.
    pub command: CommandLine,
    /// `--interval`; zero is the same as none (so for all of them).
    pub interval: Duration,
    /// `--timeout`.
    pub timeout: Duration,
    /// `--start-period`.
    pub start_period: Duration,
    /// `--start-interval`.
    pub start_interval: Duration,
    /// `--retries`.
    pub retries: u32,
}

/// `STOPSIGNAL signal`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StopsignalInstruction {
    /// What each instruction has.
    pub header: Header,
    /// The rest of the line.
    pub signal: Word,
}

/// `SHELL ["program", "argument"]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShellInstruction {
    /// What each instruction has.
    pub header: Header,
    /// At least one word.
    pub shell: Vec<String>,
}

/// `ONBUILD instruction`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OnbuildInstruction {
    /// What each instruction has.
    pub header: Header,
    /// The instruction as it goes into the image config, bodies of here-documents included; to be
    /// read by [`crate::parse::parse_trigger`] when it is triggered.
    pub trigger: Word,
}

/// `MAINTAINER name`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MaintainerInstruction {
    /// What each instruction has.
    pub header: Header,
    /// The rest of the line.
    pub name: Word,
}
