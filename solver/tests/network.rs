//! The network of steps, against servers in a network that is made for the test.
//!
//! The test starts itself again in a network namespace of its own (`unshare`), the *host*,
//! and in a third one, the *outside*, at the other end of a veth pair. Where that cannot be had it
//! says so and passes.

#![expect(clippy::print_stdout, reason = "it is its own test runner")]

mod report;
mod space;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, ExitCode, Stdio};

use rbuild_solver::sandbox::network::{Backend, Options};
use rbuild_solver::sandbox::rung::Rung;
use rbuild_solver::worker::launch::Snapshotter;
use rbuild_solver::worker::proto::{ExitStatus, Network};
use report::Report;
use space::Space;

/// Addresses of the outside.
const OUTSIDE: [&str; 2] = ["203.0.113.2", "2001:db8::2"];
/// Addresses of the host that is to be protected.
const HOST: [&str; 2] = ["203.0.113.1", "2001:db8::1"];
/// Where the host's resolver listens.
const STUB: &str = "127.0.0.53";

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = rbuild_solver::worker::dispatch_hidden(&args) {
        return code;
    }
    #[expect(clippy::disallowed_methods, reason = "which part of the test this process is")]
    let part = std::env::var("RBUILD_TEST_PART");
    match part.as_deref() {
        Ok("outside") => outside(),
        Ok(_) => inside(),
        Err(_) => {
            // `--map-auto` needs subordinate ids; without them steps cannot be had either. Root has
            // all ids.
            let words = if rustix::process::geteuid().is_root() {
                "--net --mount"
            } else {
                "--user --map-root-user --map-auto --net --mount --keep-caps"
            };
            let status = again("host", Command::new("unshare").args(words.split(' '))).status();
            match status.map(|it| it.code()) {
                Ok(Some(0)) => ExitCode::SUCCESS,
                Ok(Some(code)) if code == i32::from(FAILED) => ExitCode::FAILURE,
                other => skipped(&format!("no user and network namespace can be had: {other:?}")),
            }
        }
    }
}

/// Exit code of a failed case, unlike any of `unshare`.
const FAILED: u8 = 77;

/// This program as another part of the test, started by `command`.
fn again<'a>(part: &str, command: &'a mut Command) -> &'a mut Command {
    let own = std::env::current_exe().expect("a name");
    command.arg(own).args(std::env::args_os().skip(1)).env("RBUILD_TEST_PART", part)
}

fn ip(line: &str) -> Result<(), String> {
    let output = Command::new("ip").args(line.split(' ')).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {line}: {text}")) }
}

/// The other end of the cable: echoes, and a port that nobody listens at.
fn outside() -> ExitCode {
    let mut line = String::new();
    println!("there");
    std::io::stdin().read_line(&mut line).expect("a line");
    ip("link set lo up").expect("a loopback");
    ip("addr add 203.0.113.2/24 dev outer").expect("an address");
    ip("addr add 2001:db8::2/64 dev outer nodad").expect("an address");
    ip("link set outer up").expect("a link");
    ip("addr add 203.0.113.3/24 dev outer").expect("an address");
    for address in OUTSIDE {
        serve(address, 80);
        resolver(address).expect("a resolver");
    }
    println!("ready");
    // Until the host is gone.
    line.clear();
    drop(std::io::stdin().read_line(&mut line));
    ExitCode::SUCCESS
}

/// Says what it got, in upper case, when it got all.
fn serve(address: &str, port: u16) {
    let listener = TcpListener::bind((address, port)).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut bytes = Vec::new();
                drop(stream.read_to_end(&mut bytes));
                drop(stream.write_all(&bytes.to_ascii_uppercase()));
            });
        }
    });
}

/// Answers every question for an A record with an address of the outside.
fn resolver(address: &str) -> Result<(), String> {
    let socket = UdpSocket::bind((address, 53)).map_err(|error| format!("port 53: {error}"))?;
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let mut answer = question[..length].to_vec();
            let is_a = answer.ends_with(&[0, 1, 0, 1]);
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            answer[7] = u8::from(is_a);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 2]);
            }
            drop(socket.send_to(&answer, from));
        }
    });
    Ok(())
}

/// Makes the two networks and the cable between them.
fn cable() -> Result<Child, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut child = again("outside", Command::new("unshare").arg("--net"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let mut next = || lines.next().transpose().map_err(text);
    next()?;
    ip("link set lo up")?;
    ip(&format!("link add inner type veth peer name outer netns {}", child.id()))?;
    ip("addr add 203.0.113.1/24 dev inner")?;
    ip("addr add 2001:db8::1/64 dev inner nodad")?;
    ip("link set inner up")?;
    child.stdin.as_mut().ok_or("no input")?.write_all(b"\n").map_err(text)?;
    next()?;
    ip("route add default via 203.0.113.2")?;
    ip("route add default via 2001:db8::2")?;
    let own = tempfile::tempdir().map_err(text)?;
    let file = own.path().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {STUB}\nsearch lan\n")).map_err(text)?;
    let bind = Command::new("mount").arg("--bind").arg(&file).arg("/etc/resolv.conf").status();
    if !bind.map_err(text)?.success() {
        return Err("no bind mount".to_owned());
    }
    Ok(child)
}

fn inside() -> ExitCode {
    let prepared = cable().and_then(|child| resolver(STUB).map(|()| child));
    let mut outside = match prepared {
        Ok(child) => child,
        Err(reason) => return skipped(&reason),
    };
    serve("127.0.0.1", 8080);
    serve(HOST[0], 8080);
    serve(HOST[1], 8080);
    let filter = std::env::args().nth(1).filter(|it| !it.starts_with('-')).unwrap_or_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let options = Options { backend: Backend::Embedded, host_gateway: true, ..Options::default() };
    let found = runtime.block_on(Space::with_network(Snapshotter::Auto, Rung::Userns, options));
    let space = match found {
        Ok(space) => space,
        Err(reason) => return skipped(&reason),
    };
    let mut report = Report::default();
    for (name, case) in cases().into_iter().filter(|it| it.0.contains(&filter)) {
        report.case(name, runtime.block_on(case(&space)));
    }
    runtime.block_on(space.close());
    drop(outside.kill());
    drop(outside.wait());
    if report.close() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// None of the cases can be tried.
fn skipped(reason: &str) -> ExitCode {
    let mut report = Report::default();
    report.skip("the network of steps", reason);
    report.close();
    ExitCode::SUCCESS
}

type Outcome = Result<(), String>;
type Case = fn(&Space) -> std::pin::Pin<Box<dyn Future<Output = Outcome> + '_>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        fn cases() -> Vec<(&'static str, Case)> {
            vec![$((stringify!($name), |space| Box::pin($name(space)))),*]
        }
    };
}

cases! {
    the_outside_is_reached,
    names_are_found_by_the_hosts_stub,
    datagrams_go_there_and_back,
    what_is_refused_outside_is_refused_inside,
    the_host_is_not_reached,
    the_host_is_reached_through_its_own_network,
    the_host_can_be_allowed,
    the_end_of_one_direction_is_passed_on,
    steps_have_a_loopback_each,
    the_next_step_has_the_same_network_and_none_of_its_past,
    everything_else_is_refused,
    a_step_sees_an_interface_as_elsewhere,
}

#[track_caller]
fn same(found: &str, expect: &str) -> Outcome {
    let line = std::panic::Location::caller().line();
    if found == expect { Ok(()) } else { Err(format!("line {line}: {expect:?}, found {found:?}")) }
}

async fn says(space: &Space, script: &str, expect: &str) -> Outcome {
    let ran = space.run(script).await?;
    same(&ran.out, expect)
}

async fn the_outside_is_reached(space: &Space) -> Outcome {
    for address in OUTSIDE {
        says(space, &format!("echo hello | nc -w 5 {address} 80"), "HELLO\n").await?;
    }
    // Many at once.
    let script = "for i in 1 2 3 4 5 6 7 8; do (echo a | nc -w 5 203.0.113.2 80) & done; wait";
    says(space, script, &"A\n".repeat(8)).await
}

async fn names_are_found_by_the_hosts_stub(space: &Space) -> Outcome {
    says(space, "cat /etc/resolv.conf", "nameserver 169.254.1.1\nsearch lan\n").await?;
    says(space, "busybox nslookup -type=a some.where | tail -2", "Address: 203.0.113.2\n\n")
        .await?;
    let mut request = space.request("grep some /etc/hosts; cat /etc/resolv.conf");
    request.extra_hosts = vec![("some".into(), "203.0.113.9".into())];
    request.resolv_conf = Some("nameserver 203.0.113.2\n".into());
    same(&space.ask(request).await?.out, "203.0.113.9\tsome\nnameserver 203.0.113.2\n")
}

async fn datagrams_go_there_and_back(space: &Space) -> Outcome {
    for address in OUTSIDE {
        let script = format!("busybox nslookup -type=a some.where {address} | tail -2");
        says(space, &script, "Address: 203.0.113.2\n\n").await?;
    }
    Ok(())
}

async fn what_is_refused_outside_is_refused_inside(space: &Space) -> Outcome {
    for address in OUTSIDE {
        let script = format!("nc -w 5 {address} 81 2>&1; echo $?");
        let out = space.run(&script).await?.out;
        if !out.ends_with("Connection refused\n1\n") {
            return Err(out);
        }
    }
    // Nobody has this address: the host says so after its question was not answered.
    let out = space.run("nc -w 10 203.0.113.77 80 2>&1").await.map(|it| it.out)?;
    if !out.contains("No route to host") {
        return Err(out);
    }
    let out = space.run("busybox nslookup some.where 203.0.113.3 2>&1").await?.out;
    if out.contains("Connection refused") { Ok(()) } else { Err(out) }
}

async fn the_host_is_not_reached(space: &Space) -> Outcome {
    for address in [HOST[0], HOST[1], "169.254.169.254", "0.0.0.0"] {
        let out = space.run(&format!("echo hello | nc -w 5 {address} 8080 2>&1; true")).await?;
        if out.out.contains("HELLO") || out.out.contains("timed out") {
            return Err(format!("{address}: {}", out.out));
        }
        let told = out.exited.notes.iter().any(|it| it.contains(address));
        if !told && address != "0.0.0.0" {
            return Err(format!("{address}: {:?}", out.exited.notes));
        }
    }
    says(space, "echo hello | nc -w 5 127.0.0.1 8080 2>&1 | grep -c refused", "1\n").await
}

async fn the_host_is_reached_through_its_own_network(space: &Space) -> Outcome {
    let mut request = space.request("echo hello | nc -w 5 127.0.0.1 8080");
    request.network = Network::Host;
    same(&space.ask(request).await?.out, "HELLO\n")
}

async fn the_host_can_be_allowed(space: &Space) -> Outcome {
    let mut request = space.request("cat /etc/hosts | tail -1; echo hello | nc -w 5 here 8080");
    request.extra_hosts = vec![("here".into(), "host-gateway".into())];
    same(&space.ask(request).await?.out, "169.254.1.254\there\nHELLO\n")
}

async fn the_end_of_one_direction_is_passed_on(space: &Space) -> Outcome {
    // The server answers when it has everything: a megabyte each way, and an end in between.
    let script = "head -c 5000000 /dev/zero | tr '\\0' a | nc -w 9 203.0.113.2 80 | wc -c";
    says(space, &script.replace("tr ", "busybox tr "), "5000000\n").await
}

async fn steps_have_a_loopback_each(space: &Space) -> Outcome {
    let listen = "(echo mine | nc -l -p 7000 -w 3) & sleep 1; nc -w 1 127.0.0.1 7000; wait";
    let (one, other) = tokio::join!(space.run(listen), space.run(listen));
    same(&one?.out, "mine\n")?;
    same(&other?.out, "mine\n")
}

async fn the_next_step_has_the_same_network_and_none_of_its_past(space: &Space) -> Outcome {
    let script = "readlink /proc/self/ns/net; (sleep 100 | nc 203.0.113.2 80) & sleep 0.1";
    let first = space.run(script).await?;
    let second =
        space.run("readlink /proc/self/ns/net; cat /proc/net/tcp | grep -c ' 01 '").await?;
    same(second.out.trim_end(), &format!("{}\n0", first.out.trim_end()))?;
    match second.exited.status {
        ExitStatus::Code(1) => Ok(()),
        other @ (ExitStatus::Code(_)
        | ExitStatus::Signal(_)
        | ExitStatus::OutOfMemory
        | ExitStatus::Cancelled) => Err(format!("{other:?}")),
    }
}

async fn a_step_sees_an_interface_as_elsewhere(space: &Space) -> Outcome {
    let kinds = ["dummy", "bridge"];
    let kind = kinds.into_iter().find(|kind| ip(&format!("link add some type {kind}")).is_ok());
    if kind.is_none() {
        println!("skipped: this kernel has no interface without anything beneath");
        return Ok(());
    }
    ip("link del some")?;
    let script = "busybox ip -o addr show eth0 | busybox awk '{ print $4 }'";
    says(space, script, "192.0.0.8/32\nfd72:6275:696c:6400::8/128\n").await
}

async fn everything_else_is_refused(space: &Space) -> Outcome {
    let out = space.run("busybox ping -c 1 -W 2 203.0.113.2 2>&1").await?.out;
    if out.contains("not permitted") || out.contains("filtered") { Ok(()) } else { Err(out) }
}
