//! What a rule found, and how it is said: the texts are BuildKit's, tools look for them.

use super::Rule;

/// What a rule found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// The text of the warning.
    pub text: String,
}

/// One function for each rule. Keywords are given as they are written in the file.
impl Finding {
    /// [`Rule::StageNameCasing`]: the name of a stage is not in lower case.
    pub fn stage_name_casing(stage: &str) -> Self {
        Self::new(Rule::StageNameCasing, format!("Stage name '{stage}' should be lowercase"))
    }

    /// [`Rule::FromAsCasing`]: `AS` is not written in the case of its `FROM`.
    pub fn from_as_casing(from: &str, as_keyword: &str) -> Self {
        Self::new(
            Rule::FromAsCasing,
            format!("'{as_keyword}' and '{from}' keywords' casing do not match"),
        )
    }

    /// [`Rule::NoEmptyContinuation`]: a continued instruction has an empty line.
    pub fn no_empty_continuation() -> Self {
        Self::new(Rule::NoEmptyContinuation, "Empty continuation line".to_owned())
    }

    /// [`Rule::ConsistentInstructionCasing`]: a keyword is not written in the case of most,
    /// `lowercase` or `uppercase`.
    pub fn consistent_instruction_casing(keyword: &str, casing: &str) -> Self {
        Self::new(
            Rule::ConsistentInstructionCasing,
            format!("Command '{keyword}' should match the case of the command majority ({casing})"),
        )
    }

    /// [`Rule::DuplicateStageName`]: an earlier stage has the name.
    pub fn duplicate_stage_name(stage: &str) -> Self {
        Self::new(
            Rule::DuplicateStageName,
            format!("Duplicate stage name {stage:?}, stage names should be unique"),
        )
    }

    /// [`Rule::ReservedStageName`]: the name of a stage is reserved.
    pub fn reserved_stage_name(stage: &str) -> Self {
        Self::new(
            Rule::ReservedStageName,
            format!("Stage name should not use the same name as reserved stage {stage:?}"),
        )
    }

    /// [`Rule::JsonArgsRecommended`]: `CMD` or `ENTRYPOINT`, as written, is in shell form.
    pub fn json_args_recommended(instruction: &str) -> Self {
        Self::new(
            Rule::JsonArgsRecommended,
            format!(
                "JSON arguments recommended for {instruction} to prevent unintended behavior related to OS signals"
            ),
        )
    }

    /// [`Rule::MaintainerDeprecated`]: there is a `MAINTAINER`.
    pub fn maintainer_deprecated() -> Self {
        Self::new(
            Rule::MaintainerDeprecated,
            "Maintainer instruction is deprecated in favor of using label".to_owned(),
        )
    }

    /// [`Rule::UndefinedArgInFrom`]: `FROM` uses a name that no ARG declares.
    pub fn undefined_arg_in_from(name: &str, suggestion: Option<&str>) -> Self {
        Self::new(
            Rule::UndefinedArgInFrom,
            format!("FROM argument '{name}' is not declared{}", hint("", suggestion)),
        )
    }

    /// [`Rule::WorkdirRelativePath`]: a relative path depends on the base image.
    pub fn workdir_relative_path(path: &str) -> Self {
        Self::new(
            Rule::WorkdirRelativePath,
            format!(
                "Relative workdir {path:?} can have unexpected results if the base image changes"
            ),
        )
    }

    /// [`Rule::UndefinedVar`]: an instruction uses a variable that is not set.
    pub fn undefined_var(name: &str, suggestion: Option<&str>) -> Self {
        Self::new(
            Rule::UndefinedVar,
            format!("Usage of undefined variable '${name}'{}", hint("$", suggestion)),
        )
    }

    /// [`Rule::MultipleInstructionsDisallowed`]: a later instruction, as written, replaces this one.
    pub fn multiple_instructions_disallowed(instruction: &str) -> Self {
        Self::new(
            Rule::MultipleInstructionsDisallowed,
            format!(
                "Multiple {instruction} instructions should not be used in the same stage because only the last one will be used"
            ),
        )
    }

    /// [`Rule::LegacyKeyValueFormat`]: `ENV` or `LABEL`, as written, has a pair without `=`.
    pub fn legacy_key_value_format(instruction: &str) -> Self {
        Self::new(
            Rule::LegacyKeyValueFormat,
            format!(
                "\"{instruction} key=value\" should be used instead of legacy \"{instruction} key value\" format"
            ),
        )
    }

    /// [`Rule::InvalidBaseImagePlatform`]: the base image is for another platform.
    pub fn invalid_base_image_platform(image: &str, expected: &str, actual: &str) -> Self {
        Self::new(
            Rule::InvalidBaseImagePlatform,
            format!(
                "Base image {image} was pulled with platform {actual:?}, expected {expected:?} for current build"
            ),
        )
    }

    /// [`Rule::RedundantTargetPlatform`]: `--platform`, as written, is what it would be anyway.
    pub fn redundant_target_platform(platform: &str) -> Self {
        Self::new(
            Rule::RedundantTargetPlatform,
            format!(
                "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
            ),
        )
    }

    /// [`Rule::SecretsUsedInArgOrEnv`]: `ARG` or `ENV` has a name that [`is_secret_name`].
    pub fn secrets_used_in_arg_or_env(instruction: &str, name: &str) -> Self {
        Self::new(
            Rule::SecretsUsedInArgOrEnv,
            format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})"
            ),
        )
    }

    /// [`Rule::InvalidDefaultArgInFrom`]: with the defaults of all ARGs the image, as written, has no valid name.
    pub fn invalid_default_arg_in_from(image: &str) -> Self {
        Self::new(
            Rule::InvalidDefaultArgInFrom,
            format!("Default value for ARG {image} results in empty or invalid base image name"),
        )
    }

    /// [`Rule::FromPlatformFlagConstDisallowed`]: `--platform` is a constant.
    pub fn from_platform_flag_const_disallowed(platform: &str) -> Self {
        Self::new(
            Rule::FromPlatformFlagConstDisallowed,
            format!("FROM --platform flag should not use constant value {platform:?}"),
        )
    }

    /// [`Rule::CopyIgnoredFile`]: the ignore file excludes a source of `Copy` or `Add`.
    pub fn copy_ignored_file(verb: &str, path: &str) -> Self {
        Self::new(
            Rule::CopyIgnoredFile,
            format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore"),
        )
    }

    /// [`Rule::InvalidDefinitionDescription`]: the comment above `FROM` or `ARG` does not begin with the name.
    pub fn invalid_definition_description(instruction: &str, name: &str) -> Self {
        Self::new(
            Rule::InvalidDefinitionDescription,
            format!("Comment for {instruction} should follow the format: `# {name} <description>`"),
        )
    }

    /// [`Rule::ExposeProtoCasing`]: the protocol of a port is not in lower case.
    pub fn expose_proto_casing(port: &str) -> Self {
        Self::new(
            Rule::ExposeProtoCasing,
            format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase"),
        )
    }

    /// [`Rule::ExposeInvalidFormat`]: a port has an address or a port of the host.
    pub fn expose_invalid_format(port: &str) -> Self {
        Self::new(
            Rule::ExposeInvalidFormat,
            format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            ),
        )
    }

    fn new(rule: Rule, text: String) -> Self {
        Self { rule, text }
    }
}

fn hint(sigil: &str, name: Option<&str>) -> String {
    name.map_or(String::new(), |name| format!(" (did you mean {sigil}{name}?)"))
}

/// Whether a variable's name says that it holds a secret: a word between underscores is one of
/// those that secrets are called by, and none says that it is public.
pub fn is_secret_name(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const PUBLIC: [&str; 3] = ["public", "file", "version"];
    let lower = name.to_ascii_lowercase();
    let has_word = |known: &[&str]| lower.split('_').any(|word| known.contains(&word));
    has_word(&SECRET) && !has_word(&PUBLIC)
}
