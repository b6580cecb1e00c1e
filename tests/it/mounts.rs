//! `RUN --mount`: what a step finds, what it may do there, and what is left of it.

use std::process::{Child, Command, Stdio};

use rbuild_tests::registry::Registry;
use rbuild_tests::space::TestSpace;
use rbuild_tests::{host, needs};

/// A place whose Dockerfile is one stage of steps.
fn steps(lines: &str) -> (TestSpace, Registry) {
    let (space, registry) = TestSpace::with_busybox();
    space.write("Dockerfile", &format!("FROM @BASE@\n{lines}"));
    (space, registry)
}

#[test]
fn what_is_written_to_a_bind_mount_is_thrown_away() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = steps(
        "RUN --mount=type=bind,target=/c,rw echo new > /c/file && echo more > /c/other && cat /c/file > /seen\n\
         RUN --mount=type=bind,target=/c ! touch /c/file 2>/dev/null && cat /c/file >> /seen && [ ! -e /c/other ]\n",
    );
    space.write("file", "old\n");
    assert_eq!(space.image(&[]).tree().read("seen"), "new\nold\n");
    assert_eq!(space.read("context/file"), "old\n");
}

#[test]
fn mount_points_leave_nothing_in_the_layer() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = steps(
        "RUN --mount=type=bind,source=file,target=/a/b/file --mount=type=tmpfs,target=/t/u \
         --mount=type=cache,target=/k/l --mount=type=secret,id=s,target=/s/t/u cat /a/b/file /s/t/u > /out\n",
    );
    space.write("file", "x");
    let image = space.image(&["--secret", "id=s,src=file"]);
    assert_eq!(image.layer(image.layers().len() - 1).paths(), ["out"]);
}

#[test]
fn a_cache_has_an_id_an_owner_and_a_beginning() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS seed\nRUN mkdir -p /d/sub && echo seed > /d/sub/f\n\
         FROM @BASE@\n\
         RUN --mount=type=cache,target=/c,uid=1001,gid=1002,mode=0751 [ \"$(stat -c '%u %g %a' /c)\" = '1001 1002 751' ]\n\
         RUN --mount=type=cache,id=one,target=/x touch /x/f\n\
         RUN --mount=type=cache,id=one,target=/y [ -e /y/f ]\n\
         RUN --mount=type=cache,target=/x [ ! -e /x/f ]\n\
         RUN --mount=type=cache,from=seed,source=/d,target=/s,id=seeded cat /s/sub/f && echo mine > /s/sub/f\n\
         RUN --mount=type=cache,from=seed,source=/d,target=/s,id=seeded [ \"$(cat /s/sub/f)\" = mine ]\n\
         RUN --mount=type=cache,target=/x,id=one,ro ! touch /x/g\n\
         RUN --mount=type=cache,target=/p,id=one,sharing=private [ ! -e /p/none ]\n",
    );
    space.build(&[]).success();
}

#[test]
fn a_link_in_a_cache_does_not_lead_out_of_it() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = steps(
        "RUN --mount=type=cache,id=e,target=/c mkdir -p /c/s && echo x > /c/s/f\n\
         RUN --mount=type=cache,id=e,target=/c rm -rf /c/s && ln -s /etc /c/s\n\
         RUN --mount=type=cache,id=e,source=s,target=/v cat /v/passwd\n",
    );
    space.build(&["--no-cache"]).ended(1);
}

#[test]
fn secrets_have_a_mode_an_owner_and_a_place() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = steps(
        "RUN --mount=type=secret,id=s,mode=741,uid=100,gid=102,target=/s [ \"$(stat -c '%u %g %a' /s)\" = '100 102 741' ]\n\
         RUN --mount=type=secret,id=s cat /run/secrets/s | grep value\n\
         RUN --mount=type=secret,id=s,env=S [ \"$S\" = value ] && [ ! -e /run/secrets/s ]\n\
         RUN --mount=type=secret,id=s,env=S,target=/both [ \"$S\" = \"$(cat /both)\" ]\n\
         RUN --mount=type=secret,id=none [ ! -e /run/secrets/none ]\n",
    );
    space.run_with(&[("VALUE", "value")], &["build", "--secret", "id=s,env=VALUE", "."]).success();
    space.write("Dockerfile", "FROM @BASE@\nRUN --mount=type=secret,id=none,required true\n");
    space.build(&[]).ended(1).says("secret none: not found");
}

#[test]
fn a_tmpfs_has_the_size_that_was_asked_for() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = steps(
        "RUN --mount=type=tmpfs,target=/dev/shm,size=128m grep ' /dev/shm ' /proc/mounts | grep size=131072k\n\
         RUN [ -z \"$(ls /dev/shm)\" ]\n",
    );
    space.build(&[]).success();
}

/// An agent of the user who runs `rbuild`, with a key of that user.
pub(crate) struct Agent {
    child: Child,
}

impl Agent {
    /// Makes a key and starts an agent in a space: `home/agent`, `home/key`.
    pub(crate) fn start(space: &TestSpace) -> Self {
        let (socket, key) = (space.path("home/agent"), space.path("home/key"));
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test-key", "-f"])
            .arg(&key)
            .status()
            .unwrap();
        assert!(made.success());
        let mut agent = Command::new("ssh-agent");
        agent.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null());
        let child = space.as_runner(&mut agent).spawn().unwrap();
        let text = std::fs::read(&key).unwrap();
        space.write_bytes("home/key", &text);
        // It listens as soon as the socket can be connected to.
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            std::thread::yield_now();
        }
        let mut add = Command::new("ssh-add");
        add.arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket);
        assert!(space.as_runner(&mut add).status().unwrap().success());
        Self { child }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Puts a program of this machine and its libraries into the context: `root/usr/bin/NAME`, …
pub(crate) fn bring(space: &TestSpace, name: &str) {
    let program = host::program(name).unwrap();
    let output = Command::new("ldd").arg(&program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for library in libraries {
        space.write_bytes(&format!("context/root{library}"), &std::fs::read(library).unwrap());
    }
    let own = format!("context/root/usr/bin/{name}");
    space.write_bytes(&own, &std::fs::read(program).unwrap());
}

#[test]
fn a_step_reaches_the_agent_it_was_given() {
    needs!(Ids, Program("ssh-agent"), Program("ssh-add"), Program("ssh-keygen"), Program("ldd"));
    reaches_its_agent(&TestSpace::new(), "auto");
}

#[test]
fn a_step_without_namespaces_reaches_the_agent_it_was_given() {
    needs!(Root, Program("ssh-agent"), Program("ssh-add"), Program("ssh-keygen"), Program("ldd"));
    reaches_its_agent(&TestSpace::own(), "chroot");
}

fn reaches_its_agent(space: &TestSpace, isolation: &str) {
    bring(space, "ssh-add");
    let list = "[\"/usr/bin/ssh-add\", \"-l\"]";
    space.write(
        "Dockerfile",
        &format!(
            "FROM scratch\nCOPY --chmod=0755 root /\nRUN --mount=type=ssh {list}\n\
             RUN --mount=type=ssh,id=keys,mode=0600,uid=0 {list}\n"
        ),
    );
    let _agent = Agent::start(space);
    let socket = [("SSH_AUTH_SOCK", "@SPACE@/home/agent")];
    let isolation = format!("--isolation={isolation}");
    let keys = ["--ssh", "default", "--ssh", "keys=@SPACE@/home/key"];
    let args = [&["build", "--progress=plain", &isolation], &keys[..], &["."]].concat();
    let ran = space.run_with(&socket, &args).success();
    assert_eq!(ran.story().matches("test-key (ED25519)").count(), 2, "{}", ran.story());
    space.write("Dockerfile", "FROM scratch\nRUN --mount=type=ssh,required [\"/x\"]\n");
    space.build(&[]).ended(1).says("ssh");
}

#[test]
fn the_agents_socket_is_the_steps_alone() {
    needs!(
        Ids,
        Program("busybox"),
        Program("ssh-agent"),
        Program("ssh-add"),
        Program("ssh-keygen")
    );
    let (space, _registry) = steps(
        "RUN --mount=type=ssh,mode=741,uid=100,gid=102 [ -S $SSH_AUTH_SOCK ] && [ \"$(stat -c '%u %g %a' $SSH_AUTH_SOCK)\" = '100 102 741' ]\n\
         RUN --mount=type=ssh,target=/agent [ -S /agent ] && [ $SSH_AUTH_SOCK = /agent ]\n\
         RUN [ -z \"$SSH_AUTH_SOCK\" ] && [ ! -e /agent ] && [ ! -e /run/buildkit ]\n",
    );
    let _agent = Agent::start(&space);
    let socket = [("SSH_AUTH_SOCK", "@SPACE@/home/agent")];
    space.run_with(&socket, &["build", "--progress=plain", "--ssh", "default", "."]).success();
}

#[test]
fn what_needs_consent_is_refused_without() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = steps("RUN --network=host true\n");
    space.build(&[]).ended(1).says("entitlement network.host is not allowed");
    space.build(&["--allow", "network.host"]).success();
    let caps = "grep CapEff /proc/self/status";
    space.write(
        "Dockerfile",
        &format!("FROM @BASE@\nRUN {caps} | grep a80425fb\nRUN --security=insecure ! {caps} | grep a80425fb\n"),
    );
    space.build(&[]).ended(1).says("entitlement security.insecure is not allowed");
    space.build(&["--allow", "security.insecure"]).success();
}
