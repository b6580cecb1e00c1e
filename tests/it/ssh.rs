//! Repositories and steps that reach a server by ssh: a real one, on this machine, of the user who runs `rbuild`.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use rbuild_tests::space::TestSpace;
use rbuild_tests::{host, needs};

use crate::contexts::repository;
use crate::mounts::{Agent, bring};

/// A server that lets in who has `home/key`.
struct Server {
    child: Child,
    /// `USER@127.0.0.1:PORT`.
    address: String,
    port: String,
}

/// Makes a key without a password.
fn make_key(space: &TestSpace, name: &str) {
    let path = space.path(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path);
    assert!(space.as_runner(&mut command).status().unwrap().success());
}

impl Server {
    fn start(space: &TestSpace) -> Self {
        make_key(space, "home/host");
        if host::runner().uid == 0 {
            // Where the system's own server would have it.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let home = space.path("home").to_string_lossy().into_owned();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nAuthorizedKeysFile {home}/key.pub\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n"
        );
        space.write_bytes("home/sshd.conf", config.as_bytes());
        let mut command = Command::new(host::program("sshd").unwrap());
        command.args(["-D", "-f"]).arg(space.path("home/sshd.conf")).stderr(Stdio::null());
        let mut child = space.as_runner(&mut command).spawn().unwrap();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "sshd ended");
            std::thread::yield_now();
        }
        let address = format!("{}@127.0.0.1:{port}", host::runner().name);
        Self { child, address, port: port.to_string() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_repository_is_reached_with_an_agent_or_a_key_and_with_nothing_else() {
    needs!(Program("sshd"), Program("ssh"), Program("ssh-agent"), Program("git"));
    let space = TestSpace::new();
    let (_agent, server, repository) =
        (Agent::start(&space), Server::start(&space), repository("sha1"));
    repository.give_to(host::runner());
    space.dir("home/.ssh");
    let url = format!("ssh://{}{}", server.address, repository.path().display());
    space.write("Dockerfile", &format!("FROM scratch\nADD {url}#v1 /r/\n"));
    let by_agent = ["build", "--ssh", "default", "-o", "type=oci,dest=@OUT@/image.tar", "."];
    let socket = [("SSH_AUTH_SOCK", "@SPACE@/home/agent")];
    space.run_with(&socket, &by_agent).success();
    let image = rbuild_tests::image::Image::read(&space.path("out/image.tar"));
    assert_eq!(image.tree().read("r/file"), "first");
    let by_key = ["--ssh", "default=@SPACE@/home/key"];
    assert_eq!(space.image_of(&url, &by_key, b"").tree().read("file"), "second");
    let sub = space.image_of(&format!("{url}#v1:sub"), &by_key, b"").tree();
    assert_eq!(sub.paths(), ["Dockerfile"]);
    // The server is known now. Keys that were not offered are not tried, whoever they belong to.
    assert!(space.read("home/.ssh/known_hosts").contains(&server.port));
    make_key(&space, "home/other");
    let other = ["--no-cache", "--ssh", "default=@SPACE@/home/other"];
    space.build(&other).ended(4).says("Permission denied");
    let stranger = space.read("home/.ssh/known_hosts").replace(
        space.read("home/host.pub").split(' ').nth(1).unwrap(),
        space.read("home/other.pub").split(' ').nth(1).unwrap(),
    );
    space.write_bytes("home/.ssh/known_hosts", stranger.as_bytes());
    space.build(&[&["--no-cache"], &by_key[..]].concat()).ended(4).says("verification failed");
}

#[test]
fn a_step_reaches_a_server_with_the_agent_it_was_given() {
    needs!(Ids, Program("sshd"), Program("ssh"), Program("ssh-agent"), Program("ldd"));
    let space = TestSpace::new();
    let (_agent, server) = (Agent::start(&space), Server::start(&space));
    bring(&space, "ssh");
    let Server { address, port, .. } = &server;
    let login = address.split(':').next().unwrap();
    let ssh = format!(
        "[\"/usr/bin/ssh\", \"-oBatchMode=yes\", \"-oStrictHostKeyChecking=no\", \"-p{port}\", \"{login}\", \"echo\", \"reached\", \"it\"]"
    );
    space.write(
        "Dockerfile",
        &format!(
            "FROM scratch\nCOPY --chmod=0755 root /\nCOPY <<passwd /etc/\nroot:x:0:0::/root:/bin/sh\npasswd\n\
             RUN --mount=type=ssh --network=host {ssh}\n"
        ),
    );
    let flags = ["--allow", "network.host", "--ssh"];
    let key = ["default=@SPACE@/home/key"];
    space.build(&[&flags[..], &key].concat()).success().says("reached it");
    make_key(&space, "home/other");
    let other = ["default=@SPACE@/home/other", "--no-cache"];
    space.build(&[&flags[..], &other].concat()).ended(1).says("Permission denied");
}
