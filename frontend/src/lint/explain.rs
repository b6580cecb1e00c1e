//! The long texts of the rules: why, what to do, an example of each.

use super::Rule;

/// What a page of a rule consists of.
struct Page {
    rule: Rule,
    why: &'static str,
    bad: &'static str,
    good: &'static str,
}

/// The whole text.
pub(super) fn page(rule: Rule) -> String {
    let mut pages = NAMES.iter().chain(&FROM).chain(&STEPS);
    let Some(Page { rule: _, why, bad, good }) = pages.find(|it| it.rule == rule) else {
        // A test shows that each rule has a page.
        return format!("{}: {}\n", rule.name(), rule.description());
    };
    let experimental = if rule.is_experimental() {
        "\nThis rule is experimental: it runs only with `# check=experimental=".to_owned()
            + rule.name()
            + "`.\n"
    } else {
        String::new()
    };
    let indent = |text: &str| format!("    {}\n", text.replace('\n', "\n    "));
    format!(
        "{name}: {description}\n\n{why}\n{experimental}\nBad:\n\n{bad}\nGood:\n\n{good}\n\
         Switch it off with `# check=skip={name}` at the top of the Dockerfile, with the same\n\
         comment above one instruction, or with `--build-arg BUILDKIT_DOCKERFILE_CHECK=skip={name}`.\n",
        name = rule.name(),
        description = rule.description(),
        bad = indent(bad),
        good = indent(good),
    )
}

/// Rules about names, keywords and comments.
const NAMES: [Page; 6] = [
    Page {
        rule: Rule::FromAsCasing,
        why: "Keywords may be written in either case; one line that mixes both is hard to read.",
        bad: "FROM debian as builder",
        good: "FROM debian AS builder",
    },
    Page {
        rule: Rule::ConsistentInstructionCasing,
        why: "Keywords may be written in either case. The case that most instructions of the file\n\
              have is taken as meant, and the others are reported.",
        bad: "FROM alpine\nrun make\nCMD [\"app\"]",
        good: "FROM alpine\nRUN make\nCMD [\"app\"]",
    },
    Page {
        rule: Rule::DuplicateStageName,
        why: "Where two stages have one name, `COPY --from` and `--target` mean the later one, and\n\
              the earlier one can only be reached by its number.",
        bad: "FROM debian AS build\nFROM golang AS build",
        good: "FROM debian AS tools\nFROM golang AS build",
    },
    Page {
        rule: Rule::ReservedStageName,
        why: "`scratch` is the empty image and `context` the build context. A stage of that name\n\
              cannot be told from them.",
        bad: "FROM alpine AS scratch",
        good: "FROM alpine AS base",
    },
    Page {
        rule: Rule::InvalidDefinitionDescription,
        why: "`--call=outline` and `--call=targets` show the comment above a stage or an ARG as its\n\
              description if it begins with its name. Another comment there is probably meant for\n\
              something else; an empty comment line (`#`) keeps it apart.",
        bad: "# the compiler\nFROM golang AS build",
        good: "# build compiles the program\nFROM golang AS build",
    },
    Page {
        rule: Rule::StageNameCasing,
        why: "Names of stages are the same in upper and lower case. In lower case they are easily\n\
              told from keywords.",
        bad: "FROM alpine AS BuilderBase",
        good: "FROM alpine AS builder-base",
    },
];

/// Rules about `FROM`.
const FROM: [Page; 5] = [
    Page {
        rule: Rule::UndefinedArgInFrom,
        why: "Only ARGs that stand before the first FROM, and the predefined ones such as\n\
              BUILDPLATFORM, can be used in FROM. Any other name stands for nothing; often it is\n\
              misspelt.",
        bad: "FROM node:22${VARIANT}",
        good: "ARG VARIANT=-alpine\nFROM node:22${VARIANT}",
    },
    Page {
        rule: Rule::InvalidBaseImagePlatform,
        why: "The registry has the base image for other platforms only, or the name is pinned to\n\
              the digest of one. Programs of that image may not run where the result is meant to.",
        bad: "# built with --platform=linux/arm64\nFROM registry.example/amd64-only",
        good: "FROM --platform=$BUILDPLATFORM registry.example/amd64-only AS tools",
    },
    Page {
        rule: Rule::InvalidDefaultArgInFrom,
        why: "A Dockerfile should build without any --build-arg. Where the default of an ARG leaves\n\
              an empty or broken image name, it cannot.",
        bad: "ARG TAG\nFROM busybox:${TAG}",
        good: "ARG TAG=latest\nFROM busybox:${TAG}",
    },
    Page {
        rule: Rule::FromPlatformFlagConstDisallowed,
        why: "A constant platform makes the stage the same for all target platforms, so no\n\
              multi-platform image can be built. Leave the flag out and build with --platform, use\n\
              $BUILDPLATFORM, or, if it is meant, name the platform in the name of the stage.",
        bad: "FROM --platform=linux/amd64 alpine AS base",
        good: "FROM --platform=linux/amd64 alpine AS base-amd64",
    },
    Page {
        rule: Rule::RedundantTargetPlatform,
        why: "The platform of a base image is the target platform unless something else is said.",
        bad: "FROM --platform=$TARGETPLATFORM alpine",
        good: "FROM alpine",
    },
];

/// Rules about the other instructions.
const STEPS: [Page; 11] = [
    Page {
        rule: Rule::NoEmptyContinuation,
        why: "An empty line does not end an instruction whose last line ended with the escape\n\
              character, which is easily overlooked. Lines with a comment are not empty.",
        bad: "RUN apk add \\\n\n    curl",
        good: "RUN apk add \\\n    # for the health check\n    curl",
    },
    Page {
        rule: Rule::JsonArgsRecommended,
        why: "In shell form the program is a child of a shell, which is process 1 and does not pass\n\
              signals on: the container does not stop when asked to. Where a shell is wanted, say\n\
              so with SHELL or in JSON form.",
        bad: "ENTRYPOINT my-program start",
        good: "ENTRYPOINT [\"my-program\", \"start\"]",
    },
    Page {
        rule: Rule::MaintainerDeprecated,
        why: "The author of an image is a label now, which tools can read.",
        bad: "MAINTAINER me@example.com",
        good: "LABEL org.opencontainers.image.authors=\"me@example.com\"",
    },
    Page {
        rule: Rule::WorkdirRelativePath,
        why: "A relative path continues the working directory of the base image, which may change\n\
              with the next version of that image.",
        bad: "FROM nginx\nWORKDIR html",
        good: "FROM nginx\nWORKDIR /usr/share/nginx/html",
    },
    Page {
        rule: Rule::UndefinedVar,
        why: "A variable that no ENV, ARG or base image sets stands for nothing; often its name is\n\
              misspelt. Commands in shell form are not checked: there the shell expands variables.",
        bad: "ENV PATH=$PAHT:/app/bin",
        good: "ENV PATH=$PATH:/app/bin",
    },
    Page {
        rule: Rule::MultipleInstructionsDisallowed,
        why: "An image has one CMD, one ENTRYPOINT and one HEALTHCHECK. The last one of a stage\n\
              counts; those before it are probably left over.",
        bad: "ENTRYPOINT [\"a\"]\nENTRYPOINT [\"b\"]",
        good: "ENTRYPOINT [\"b\"]",
    },
    Page {
        rule: Rule::SecretsUsedInArgOrEnv,
        why: "Values of ARG and ENV stay in the image or in its history, where everybody can read\n\
              them who has the image. A secret mount shows a secret to one step and keeps nothing.",
        bad: "ARG AWS_SECRET_ACCESS_KEY\nRUN aws s3 cp s3://bucket/file .",
        good: "RUN --mount=type=secret,id=aws,env=AWS_SECRET_ACCESS_KEY \\\n    aws s3 cp s3://bucket/file .",
    },
    Page {
        rule: Rule::CopyIgnoredFile,
        why: "Files that match .dockerignore are not in the build context, so copying them fails, or\n\
              silently copies less than it seems to.",
        bad: "# .dockerignore has `tmp`\nCOPY tmp/config /etc/config",
        good: "COPY config /etc/config",
    },
    Page {
        rule: Rule::ExposeProtoCasing,
        why: "Tools that read the image compare the protocol as it is written.",
        bad: "EXPOSE 80/TCP",
        good: "EXPOSE 80/tcp",
    },
    Page {
        rule: Rule::ExposeInvalidFormat,
        why: "Which address and port of the host a port is published on is decided when the\n\
              container runs. This will be an error in a later version.",
        bad: "EXPOSE 127.0.0.1:8080:80",
        good: "EXPOSE 80",
    },
    Page {
        rule: Rule::LegacyKeyValueFormat,
        why: "With a blank the whole rest of the line is the value, so that only one variable can be\n\
              set and blanks are easily taken for separators.",
        bad: "ENV DEPS curl git",
        good: "ENV DEPS=\"curl git\"",
    },
];
