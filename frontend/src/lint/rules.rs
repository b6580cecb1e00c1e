//! The rules as a table.

use super::explain;

/// A rule of BuildKit's rule set.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "each has its description as data")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 22] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JsonArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
    ];

    /// The rule of that name; upper and lower case are the same.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name().eq_ignore_ascii_case(name))
    }

    /// `StageNameCasing`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StageNameCasing => "StageNameCasing",
            Self::FromAsCasing => "FromAsCasing",
            Self::NoEmptyContinuation => "NoEmptyContinuation",
            Self::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Self::DuplicateStageName => "DuplicateStageName",
            Self::ReservedStageName => "ReservedStageName",
            Self::JsonArgsRecommended => "JSONArgsRecommended",
            Self::MaintainerDeprecated => "MaintainerDeprecated",
            Self::UndefinedArgInFrom => "UndefinedArgInFrom",
            Self::WorkdirRelativePath => "WorkdirRelativePath",
            Self::UndefinedVar => "UndefinedVar",
            Self::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Self::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Self::InvalidBaseImagePlatform => "InvalidBaseImagePlatform",
            Self::RedundantTargetPlatform => "RedundantTargetPlatform",
            Self::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Self::InvalidDefaultArgInFrom => "InvalidDefaultArgInFrom",
            Self::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Self::CopyIgnoredFile => "CopyIgnoredFile",
            Self::InvalidDefinitionDescription => "InvalidDefinitionDescription",
            Self::ExposeProtoCasing => "ExposeProtoCasing",
            Self::ExposeInvalidFormat => "ExposeInvalidFormat",
        }
    }

    /// One sentence, without full stop.
    pub fn description(self) -> &'static str {
        match self {
            Self::StageNameCasing => "names of stages should be in lower case",
            Self::FromAsCasing => "AS should be written in the case of its FROM",
            Self::NoEmptyContinuation => {
                "empty lines within a continued instruction will be errors in a later version"
            }
            Self::ConsistentInstructionCasing => {
                "all instructions should be written in the same case, upper or lower"
            }
            Self::DuplicateStageName => "names of stages should be unique",
            Self::ReservedStageName => "a stage should not have a reserved name",
            Self::JsonArgsRecommended => {
                "CMD and ENTRYPOINT should be in JSON form, so that the program gets signals"
            }
            Self::MaintainerDeprecated => {
                "MAINTAINER is deprecated; a label names the author of an image"
            }
            Self::UndefinedArgInFrom => "FROM should use declared ARGs only",
            Self::WorkdirRelativePath => {
                "a relative WORKDIR depends on the base image where no absolute one stands before it"
            }
            Self::UndefinedVar => "variables should be defined before they are used",
            Self::MultipleInstructionsDisallowed => {
                "of several instructions of this kind in a stage only the last counts"
            }
            Self::LegacyKeyValueFormat => "names and values should be separated by `=`",
            Self::InvalidBaseImagePlatform => {
                "the platform of a base image should be the one that was asked for"
            }
            Self::RedundantTargetPlatform => {
                "$TARGETPLATFORM is the platform of FROM anyway and need not be given"
            }
            Self::SecretsUsedInArgOrEnv => "ARG and ENV should not hold secrets",
            Self::InvalidDefaultArgInFrom => {
                "defaults of global ARGs should give a valid name of the base image"
            }
            Self::FromPlatformFlagConstDisallowed => "--platform of FROM should not be a constant",
            Self::CopyIgnoredFile => "files that .dockerignore excludes cannot be copied",
            Self::InvalidDefinitionDescription => {
                "the comment above a stage or ARG should be its description"
            }
            Self::ExposeProtoCasing => "protocols in EXPOSE should be in lower case",
            Self::ExposeInvalidFormat => {
                "EXPOSE names ports of the container, without address and without port of the host"
            }
        }
    }

    /// Why the rule is there and what to do, with examples: text of several lines, for
    /// `rbuild explain-rule`.
    pub fn explanation(self) -> String {
        explain::page(self)
    }

    /// Whether the rule runs only where asked for by name.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }

    /// Whether the rule never strikes any more. None of these is.
    pub fn is_deprecated(self) -> bool {
        false
    }
}
