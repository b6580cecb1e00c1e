//! Flags of `docker build`, `buildx build`, `podman build` and `buildah build` that rbuild does not have: whoever brings
//! a script along is told what to write instead.

/// Flags and what does their work here.
const FLAGS: &[(&str, &str)] = &[
    ("--builder", "there are no builders to choose from: rbuild is the builder"),
    ("--build-arg-file", "--build-arg NAME=VALUE, once for each"),
    ("--cgroup-parent", "start rbuild itself in that group, with systemd-run(1) for instance"),
    ("--cgroupns", "each step has a namespace of its own"),
    (
        "--creds",
        "credentials come from `docker login` (~/.docker/config.json) and credential helpers",
    ),
    ("--authfile", "DOCKER_CONFIG names the directory of another config.json"),
    ("--debug", "--progress=rawjson shows everything, --explain why a step ran"),
    ("--device", "devices of the host are not given to steps"),
    ("--disable-content-trust", "leave it away: signatures are not looked at"),
    ("--format", "-o type=image,oci-mediatypes=false writes Docker's media types"),
    ("--ignorefile", "NAME.dockerignore beside the Dockerfile called NAME is used"),
    ("--invoke", "rbuild has no debugger"),
    ("--layers", "leave it away: steps are always cached; --no-cache to do without"),
    ("--logfile", "redirect standard error"),
    ("--print", "--call=outline, --call=targets, --call=check"),
    (
        "--security-opt",
        "steps have rbuild's own seccomp filter; `RUN --security=insecure` with --allow security.insecure",
    ),
    ("--server-use", "there is no server"),
    ("--squash", "copy the files into a last stage: `FROM scratch`, `COPY --from=STAGE / /`"),
    ("--squash-all", "copy the files into a last stage: `FROM scratch`, `COPY --from=STAGE / /`"),
    (
        "--tls-verify",
        "plain HTTP is used for localhost, and where registries.conf or buildkitd.toml says so",
    ),
    ("--userns", "rbuild chooses: see --isolation and `rbuild doctor`"),
    (
        "--volume",
        "RUN --mount=type=bind in the Dockerfile, with --build-context for other directories",
    ),
];

/// What to write instead of a flag.
pub fn way_out(flag: &str) -> Option<&'static str> {
    let flag = flag.split('=').next().unwrap_or(flag);
    FLAGS.iter().find(|(name, _)| *name == flag).map(|(_, way)| *way)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::raw::Cli;

    #[test]
    fn a_flag_with_a_value_is_known_too() {
        assert!(way_out("--squash").is_some_and(|way| way.contains("FROM scratch")));
        assert_eq!(way_out("--userns=host"), way_out("--userns"));
        assert_eq!(way_out("--surprise"), None);
    }

    #[test]
    fn no_flag_of_our_own_is_called_foreign() {
        let cli = Cli::command();
        let build = cli.find_subcommand("build").unwrap();
        let own = build.get_arguments().filter_map(clap::Arg::get_long);
        let both: Vec<_> = own.filter(|name| way_out(&format!("--{name}")).is_some()).collect();
        assert_eq!(both, [""; 0]);
    }
}
