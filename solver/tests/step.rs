//! Steps that really run, in a real namespace: what they see, what they leave, how they end.
//!
//! The test's own binary is the worker and init, as `rbuild` is in the product, so it has its own
//! `main`. Where no namespace can be had or no busybox is there, it says so and passes.

#![expect(clippy::print_stdout, reason = "it is its own test runner")]

mod killed;
mod report;
mod space;
mod together;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use killed::{nothing_outlives_a_killed_build, nothing_outlives_a_killed_keeper};
use rbuild_solver::sandbox::rung::Rung;
use rbuild_solver::worker::launch::Snapshotter;
use rbuild_solver::worker::proto::{ExecMount, FailureKind, MountSource, Network};
use report::Report;
use space::{Space, cache, fresh_proc, mount};
use together::{
    several_run_at_once, steps_of_different_stages_run_side_by_side,
    steps_that_share_a_cache_do_not_wait,
};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = rbuild_solver::worker::dispatch_hidden(&args) {
        return code;
    }
    if let [_, hang, store, base, rung] = &args[..]
        && hang == "hang"
    {
        let rung = Rung::ALL.into_iter().find(|it| rung == it.name()).expect("a rung");
        return killed::run_forever(store.as_ref(), &base.to_string_lossy(), rung);
    }
    let filter = std::env::args().nth(1).filter(|it| !it.starts_with('-')).unwrap_or_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut report = Report::default();
    let drivers = [Snapshotter::Overlay, Snapshotter::Plain];
    let rungs = [Rung::Userns, Rung::UsernsSingle, Rung::Chroot];
    let both = rungs.iter().flat_map(|&it| drivers.map(|driver| (it, driver)));
    // That one has no mounts.
    let both = both.filter(|it| *it != (Rung::Chroot, Snapshotter::Overlay));
    for (rung, snapshotter) in both {
        let space = match runtime.block_on(Space::new(snapshotter, rung)) {
            Ok(space) => space,
            Err(reason) => {
                report.skip(&format!("steps ({rung:?}, {snapshotter:?})"), &reason);
                continue;
            }
        };
        for (name, case) in cases().into_iter().filter(|it| it.0.contains(&filter)) {
            let name = format!("{name} ({rung:?}, {snapshotter:?})");
            report.case(&name, runtime.block_on(case(&space)));
        }
        runtime.block_on(space.close());
    }
    if report.close() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(crate) type Outcome = Result<(), String>;
type Case = fn(&Space) -> std::pin::Pin<Box<dyn Future<Output = Outcome> + '_>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        fn cases() -> Vec<(&'static str, Case)> {
            vec![$((stringify!($name), |space| Box::pin($name(space)))),*]
        }
    };
}

cases! {
    it_is_pid_1_and_root_of_its_own_machine,
    it_is_alone,
    it_has_the_capabilities_of_docker,
    it_cannot_mount_or_make_namespaces,
    users_come_from_the_image,
    a_missing_user_is_the_users_mistake,
    a_missing_program_is_127,
    mount_points_leave_no_litter,
    what_the_step_puts_in_a_stub_stays,
    devices_are_those_of_docker,
    a_secret_is_a_file_in_memory,
    a_cache_outlives_the_step,
    a_cache_can_start_with_content,
    mounts_of_trees,
    what_is_mounted_to_be_read_cannot_be_changed,
    a_relayed_socket_is_in_its_place,
    without_network_there_is_only_loopback,
    background_processes_end_with_the_step,
    a_failed_step_leaves_nothing,
    signals_are_told_apart,
    a_cancelled_step_ends,
    several_run_at_once,
    steps_that_share_a_cache_do_not_wait,
    steps_of_different_stages_run_side_by_side,
    nothing_outlives_a_killed_build,
    nothing_outlives_a_killed_keeper,
    owners_are_what_the_step_made_them,
    who_is_not_root_makes_what_is_not_roots,
    ids_follow_the_process,
    the_next_step_sees_the_owners,
    a_hostile_step_gains_nothing_from_its_supervisor,
}

#[track_caller]
pub(crate) fn same(found: &str, expect: &str) -> Outcome {
    let line = std::panic::Location::caller().line();
    if found == expect {
        return Ok(());
    }
    Err(format!("line {line}: expected\n{expect}\nfound\n{found}"))
}

async fn it_is_pid_1_and_root_of_its_own_machine(space: &Space) -> Outcome {
    let mut request = space.request(
        "id; echo $$; pwd; umask; env | sort; readlink /proc/self/fd/0 | cut -c1-5; \
         ls /proc/self/fd | wc -l",
    );
    request.cwd = "/new/dir".into();
    let ran = space.ask(request).await?;
    // Without namespaces it is one of the processes of the container.
    let no_namespaces = space.rung == Rung::Chroot;
    let pid = if no_namespaces { ran.out.lines().nth(1).unwrap_or_default() } else { "1" };
    let expect = format!(
        "uid=0(root) gid=0(root) groups=0(root),10(wheel)\n{pid}\n/new/dir\n0022\n\
         HOME=/root\nPATH=/bin:/sbin\nPWD=/new/dir\nSHLVL=1\npipe:\n4\n"
    );
    same(&ran.out, &expect)?;
    same(&space.left(&ran)?, "new new/dir")
}

async fn it_is_alone(space: &Space) -> Outcome {
    if !fresh_proc() {
        // The surrounding container allows neither a `/proc` nor a host name of one's own.
        return Ok(());
    }
    // The shell alone.
    let script = "hostname; set -- /proc/[0-9]*; echo $#";
    same(&space.run(script).await?.out, "buildkitsandbox\n1\n")
}

async fn it_has_the_capabilities_of_docker(space: &Space) -> Outcome {
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | cut -f2";
    // Where the build itself runs like that, so do its steps.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut bound = u8::from(status.contains("NoNewPrivs:\t1"));
    let (none, mut set) = ("0000000000000000", "00000000a80425fb");
    if space.rung == Rung::Chroot {
        // SYS_CHROOT, MKNOD and NET_RAW would lead out; with FSETID who writes to a set-user-id file
        // would not take the bit away, as in a user namespace.
        (bound, set) = (1, "00000000a00005eb");
    }
    same(
        &space.run(script).await?.out,
        &format!("{none}\n{set}\n{set}\n{set}\n{none}\n{bound}\n2\n"),
    )?;
    let mut request = space.request(script);
    request.user = "app".into();
    let ran = space.ask(request).await?;
    same(&ran.out, &format!("{none}\n{none}\n{none}\n{set}\n{none}\n{bound}\n2\n"))
}

async fn it_cannot_mount_or_make_namespaces(space: &Space) -> Outcome {
    let script = "mount -t tmpfs x /tmp 2>/dev/null && echo mounted; \
                  unshare -U true 2>/dev/null && echo unshared; \
                  (echo x > /proc/sys/kernel/hostname) 2>/dev/null && echo sysctl; \
                  ls /sys/fs/cgroup /sys/firmware 2>/dev/null | grep -v ':$' | grep -c .; \
                  cat /proc/keys /proc/kcore 2>/dev/null | wc -c";
    same(&space.run(script).await?.out, "0\n0\n")
}

async fn users_come_from_the_image(space: &Space) -> Outcome {
    let script = "id; echo $HOME; echo x > /dev/stdout; touch /home/app/f 2>/dev/null || echo no";
    let ids = [
        ("app", "uid=1000(app) gid=1001(app) groups=10(wheel),1001(app)\n/home/app\nx\nno\n"),
        ("1000:1001", "uid=1000(app) gid=1001(app) groups=1001(app)\n/home/app\nx\nno\n"),
        ("77:wheel", "uid=77 gid=10(wheel) groups=10(wheel)\n/\nx\nno\n"),
    ];
    for (user, expect) in ids {
        let mut request = space.request(script);
        request.user = user.into();
        same(&space.ask(request).await?.out, expect)?;
    }
    Ok(())
}

async fn a_missing_user_is_the_users_mistake(space: &Space) -> Outcome {
    let mut request = space.request("true");
    request.user = "nobody".into();
    let failure = space.refused(request).await?;
    same(&failure.text, "unable to find user nobody: no matching entries in passwd file")?;
    same(&format!("{:?}", failure.kind), &format!("{:?}", FailureKind::User))
}

async fn a_missing_program_is_127(space: &Space) -> Outcome {
    let programs = [
        ("nope", "Code(127)", "exec: \"nope\": executable file not found in $PATH\n"),
        ("/nope", "Code(127)", "exec: \"/nope\": stat /nope: no such file or directory\n"),
        ("/etc/passwd", "Code(126)", "exec: \"/etc/passwd\": permission denied\n"),
        ("/etc", "Code(126)", "exec: \"/etc\": is a directory\n"),
    ];
    for (program, status, text) in programs {
        let mut request = space.request("");
        request.args = vec![program.to_owned()];
        let ran = space.ask(request).await?;
        same(&ran.out, text)?;
        same(&format!("{:?}", ran.exited.status), status)?;
    }
    Ok(())
}

async fn mount_points_leave_no_litter(space: &Space) -> Outcome {
    let mut request =
        space.request("ls -d /t/u /etc/resolv.conf /etc/hosts /a/b && echo x > /a/b/y");
    request.mounts.push(mount("/t/u", MountSource::Tmpfs { size: 1 << 20 }));
    request.mounts.push(mount("/a/b", MountSource::Tmpfs { size: 0 }));
    let ran = space.ask(request).await?;
    same(&ran.out, "/a/b\n/etc/hosts\n/etc/resolv.conf\n/t/u\n")?;
    same(&space.left(&ran)?, "")
}

async fn what_the_step_puts_in_a_stub_stays(space: &Space) -> Outcome {
    let mut request = space.request("echo x > /t/kept");
    request.mounts.push(mount("/t/u", MountSource::Tmpfs { size: 0 }));
    let ran = space.ask(request).await?;
    same(&space.left(&ran)?, "t t/kept")
}

async fn devices_are_those_of_docker(space: &Space) -> Outcome {
    let script = "ls /dev | grep -vx core; readlink /dev/ptmx; echo x > /dev/null && head -c4 /dev/zero | wc -c";
    let expect = "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\n\
                  urandom\nzero\npts/ptmx\n4\n";
    same(&space.run(script).await?.out, expect)
}

async fn a_secret_is_a_file_in_memory(space: &Space) -> Outcome {
    let file = "/run/secrets/s";
    let script = format!("cat {file}; stat -c ' %a %u %g' {file}; stat -f -c %T {file}");
    let mut request = space.request(&script);
    let source = MountSource::Secret { value: 2, uid: 5, gid: 6, mode: 0o440 };
    request.mounts.push(mount(file, source));
    let (reader, mut writer) = std::io::pipe().map_err(|error| error.to_string())?;
    writer.write_all(b"s3cret").map_err(|error| error.to_string())?;
    drop(writer);
    let ran = space.ask_with(request, vec![reader.into()]).await.map_err(|it| it.text)?;
    let (text, kind) = ran.out.split_at_checked(15).unwrap_or_default();
    same(text, "s3cret 440 5 6\n")?;
    // On the rung `chroot` it is the file system of its place in the tree, in which nothing lies.
    if space.rung != Rung::Chroot {
        same(kind, "tmpfs\n")?;
    }
    same(&space.left(&ran)?, "")
}

async fn a_cache_outlives_the_step(space: &Space) -> Outcome {
    let mut request = space.request("stat -c '%a %u %g' /c; echo kept > /c/f");
    request.mounts.push(mount("/c", cache("one")));
    same(&space.ask(request).await?.out, "711 123 456\n")?;
    let mut request = space.request("cat /other/f");
    request.mounts.push(mount("/other", cache("one")));
    same(&space.ask(request).await?.out, "kept\n")
}

async fn a_cache_can_start_with_content(space: &Space) -> Outcome {
    let mut request = space.request("wc -l < /c/passwd; stat -c %u /c; echo x 2>/dev/null > /c/x");
    let (base, selector) = (vec![space.base.clone()], "/etc".to_owned());
    let dir = PathBuf::from("cache-mounts/two");
    let source = MountSource::Cache { dir, base, selector, mode: 0o711, uid: 123, gid: 456 };
    request.mounts.push(ExecMount { dest: "/c".to_owned(), readonly: true, source });
    let ran = space.ask(request).await?;
    same(&ran.out, "2\n0\n")?;
    same(&format!("{:?}", ran.exited.status), "Code(1)")
}

async fn mounts_of_trees(space: &Space) -> Outcome {
    let tree = |selector: &str| {
        let (chain, selector) = (vec![space.base.clone()], selector.to_owned());
        MountSource::Tree { chain, selector, commit: None }
    };
    let script = "wc -l < /f/g; (echo x > /r/new) 2>/dev/null || echo ro; \
                  echo y > /w/new && cat /w/new; ls -d /w/etc";
    let mut request = space.request(script);
    request.mounts.push(mount("/f/g", tree("etc/passwd")));
    let (dest, source) = ("/r".to_owned(), tree(""));
    request.mounts.push(ExecMount { dest, readonly: true, source });
    request.mounts.push(mount("/w", tree("/")));
    let ran = space.ask(request).await?;
    same(&ran.out, "2\nro\ny\n/w/etc\n")?;
    same(&space.left(&ran)?, "")?;
    let mut request = space.request("true");
    request.mounts.push(mount("/m", tree("no/such")));
    same(&space.refused(request).await?.text, "\"no/such\": not found")
}

async fn what_is_mounted_to_be_read_cannot_be_changed(space: &Space) -> Outcome {
    let script = "cd /r; no() { \"$@\" 2>/tmp/why && echo \"$*\"; grep -q 'Read-only' /tmp/why || echo \"$*: $(cat /tmp/why)\"; }; \
        no touch etc/passwd; no touch new; no mkdir etc/new; no rmdir tmp; no rm etc/passwd; no ln -s x etc/l; \
        no ln etc/passwd etc/hard; no mv etc/passwd etc/moved; no chmod 700 etc; no chown 5 etc/passwd; no mkfifo etc/p; \
        no cp /etc/group etc/passwd; no cp /etc/group new; no truncate -s 0 etc/passwd; mkdir -p etc; \
        cat etc/passwd > /dev/null && cp etc/passwd /tmp/ && mv /tmp/passwd /tmp/moved; mkdir etc 2>/tmp/why; grep -o exists /tmp/why; \
        rmdir /r 2>/tmp/why; grep -o busy /tmp/why; cd /; ls /r | wc -l";
    let mut request = space.request(script);
    let (chain, selector) = (vec![space.base.clone()], String::new());
    let source = MountSource::Tree { chain, selector, commit: None };
    request.mounts.push(ExecMount {
        dest: "/r".to_owned(),
        readonly: true,
        source: source.clone(),
    });
    let ran = space.ask(request).await?;
    let count = ran.out.lines().last().unwrap_or_default();
    same(&ran.out, &format!("exists\nbusy\n{count}\n"))?;
    // No mount point can be made in it.
    let mut request = space.request("true");
    request.mounts.push(ExecMount { dest: "/r".to_owned(), readonly: true, source });
    request.mounts.push(mount("/r/new/x", MountSource::Tmpfs { size: 0 }));
    let failure = space.refused(request).await?;
    same(
        &failure.text[failure.text.len().saturating_sub(35)..],
        "Read-only file system (os error 30)",
    )
}

async fn a_relayed_socket_is_in_its_place(space: &Space) -> Outcome {
    // busybox has no program that speaks through it; that it does is tested beside the relay.
    let path = space.path().join("agent");
    let mut request = space.request("stat -c '%a %u %F' /run/s");
    request.mounts.push(mount("/run/s", MountSource::Socket { path, uid: 0, gid: 0, mode: 0o600 }));
    let ran = space.ask(request).await?;
    same(&ran.out, "600 0 socket\n")?;
    same(&space.left(&ran)?, "")
}

async fn without_network_there_is_only_loopback(space: &Space) -> Outcome {
    let mut request =
        space.request("ls /sys/class/net; ip -o addr show lo 2>/dev/null | grep -c 127.0.0.1");
    request.network = Network::None;
    // Without namespaces it has the container's, and no way to use it.
    let expect = if space.rung == Rung::Chroot { "lo\n0\n" } else { "lo\n1\n" };
    same(&space.ask(request).await?.out, expect)
}

async fn background_processes_end_with_the_step(space: &Space) -> Outcome {
    // Its output stays open as long as one of them lives: this ends only if all are gone.
    let ran = space.run("(sleep 1000 & sleep 1000 &); echo started").await?;
    same(&ran.out, "started\n")
}

async fn a_failed_step_leaves_nothing(space: &Space) -> Outcome {
    let ran = space.run("echo x > /x; exit 7").await?;
    same(&format!("{:?}", ran.exited.status), "Code(7)")?;
    same(&ran.exited.layers.len().to_string(), "0")
}

async fn signals_are_told_apart(space: &Space) -> Outcome {
    let mut request = space.request("while :; do :; done");
    request.ulimits = vec![("cpu".to_owned(), 1, 1)];
    let ran = space.ask(request).await?;
    same(&format!("{:?}", ran.exited.status), "Signal(9)")
}

async fn a_cancelled_step_ends(space: &Space) -> Outcome {
    let (mut reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let fds = vec![writer.try_clone().map_err(|error| error.to_string())?.into(), writer.into()];
    let request = space.request("trap '' TERM; echo ready; sleep 1000");
    let mut execution = space.worker.exec(request, fds).await.map_err(|it| it.text)?;
    let mut word = [0; 5];
    reader.read_exact(&mut word).map_err(|error| error.to_string())?;
    execution.cancel();
    let exited = execution.wait().await.map_err(|it| it.text)?;
    same(&format!("{:?}", exited.status), "Cancelled")
}

async fn owners_are_what_the_step_made_them(space: &Space) -> Outcome {
    let script = "umask 022; mkdir /o; cd /o; echo x > f; chown 5:6 f; chmod 4755 f; ln f hard; \
        echo x > s; chmod 6755 s; chown 0:7 s; ln -s f l; chown -h 8:9 l; mkdir d; chown 3:4 d; \
        chmod 2775 d; mkdir d/in; echo x > d/new; mkfifo p; chown 1:2 p; touch z; chown 9:9 z; \
        chown 0:0 z; mv f g; stat -c '%n %u:%g %a' *";
    let ran = space.run(script).await?;
    let seen =
        "d 3:4 2775\ng 5:6 4755\nhard 5:6 4755\nl 8:9 777\np 1:2 644\ns 0:7 755\nz 0:0 644\n";
    same(&ran.out, seen)?;
    let left = "o 0:0 755 dir\no/d 3:4 2775 dir\no/d/in 0:4 2755 dir\no/d/new 0:4 644 file 2\n\
        o/g 5:6 4755 file 2\no/hard 0:0 0 hard link\no/l 8:9 777 link\no/p 1:2 644 fifo\n\
        o/s 0:7 755 file 2\no/z 0:0 644 file 0\n";
    let owners = space.owners(&ran)?.replace("o/hard 5:6 4755", "o/hard 0:0 0");
    same(owners.trim_start_matches(" 0:0 755 dir\n"), left)?;
    if space.rung == Rung::UsernsSingle {
        let ran = space.run("cd /home; mknod c c 1 3; mknod b b 8 0; stat -c '%n %F' b c").await?;
        same(&ran.out, "b block special file\nc character special file\n")?;
        let owners = space.owners(&ran)?;
        let owners = owners.trim_start_matches(" 0:0 755 dir\n");
        same(owners, "home 0:0 755 dir\nhome/b 0:0 644 block 8 0\nhome/c 0:0 644 char 1 3\n")?;
    }
    Ok(())
}

async fn who_is_not_root_makes_what_is_not_roots(space: &Space) -> Outcome {
    let script = "mkdir /tmp/d && echo x > /tmp/d/f && ln -s f /tmp/d/l && mkfifo /tmp/d/p; \
        stat -c '%u:%g' /tmp/d /tmp/d/f; chown 5 /tmp/d/f 2>/dev/null || echo no; \
        chown 1000:10 /tmp/d/f; chmod 640 /tmp/d/f; chmod 600 /etc/passwd 2>/dev/null || echo no; \
        (echo y > /etc/new) 2>/dev/null || echo no; mkdir /etc/d 2>/dev/null || echo no; \
        (echo y > /etc/passwd) 2>/dev/null || echo no; echo z >> /tmp/d/f; cat /tmp/d/f";
    let mut request = space.request(script);
    request.user = "app".into();
    let ran = space.ask(request).await?;
    same(&ran.out, "1000:1001\n1000:1001\nno\nno\nno\nno\nno\nx\nz\n")?;
    let left = "tmp 0:0 1777 dir\ntmp/d 1000:1001 755 dir\ntmp/d/f 1000:10 640 file 4\n\
        tmp/d/l 1000:1001 777 link\ntmp/d/p 1000:1001 644 fifo\n";
    let owners = space.owners(&ran)?;
    same(owners.trim_start_matches(" 0:0 755 dir\n"), left)
}

async fn ids_follow_the_process(space: &Space) -> Outcome {
    // The one that asks last has lost its parent, and was adopted by a process of another user.
    let script = "su app -c 'id -u; sh -c \"id -u; id -G\"; \
        (sh -c \"while [ -e /tmp/wait ]; do :; done; id -u > /tmp/late\" &) ' ; id -u; \
        rm -f /tmp/wait; while ! [ -s /tmp/late ]; do :; done; cat /tmp/late";
    let script = format!("echo x > /tmp/wait; chmod 666 /tmp/wait; {script}");
    same(&space.run(&script).await?.out, "1000\n1000\n1001 10\n0\n1000\n")
}

async fn the_next_step_sees_the_owners(space: &Space) -> Outcome {
    let script =
        "cd /home/app; echo x > f; ln -s f l; mkfifo p; chown -h 1000:1001 . f l p; chmod 400 f";
    let ran = space.run(script).await?;
    let layer = ran.exited.layers[0].layer.clone();
    let mut request = space.request(
        "cd /home/app; stat -c '%n %u:%g %a' . *; mv l m; chmod 600 f; stat -c '%n %u:%g %a' f m; \
         echo y > new; stat -c %u new",
    );
    request.user = "app".into();
    if let MountSource::Tree { chain, .. } = &mut request.mounts[0].source {
        chain.push(layer);
    }
    let ran = space.ask(request).await?;
    let seen = ". 1000:1001 755\nf 1000:1001 400\nl 1000:1001 777\np 1000:1001 644\n\
        f 1000:1001 600\nm 1000:1001 777\n1000\n";
    same(&ran.out, seen)?;
    let owners = space.owners(&ran)?;
    let left = "home 0:0 755 dir\nhome/app 1000:1001 755 dir\nhome/app/f 1000:1001 600 file 2\n\
        home/app/l 0:0 0 gone\nhome/app/m 1000:1001 777 link\nhome/app/new 1000:1001 644 file 2\n";
    same(owners.trim_start_matches(" 0:0 755 dir\n"), left)
}

async fn a_hostile_step_gains_nothing_from_its_supervisor(space: &Space) -> Outcome {
    // Links that would resolve with the rights of whoever follows them, links and `..` out of the
    // root, roots within the root, and races for what a path means.
    let outside = space.path().join("outside");
    std::fs::create_dir_all(&outside).map_err(|error| error.to_string())?;
    let outside = outside.display();
    let script = format!(
        "for root in /proc/1/root /proc/self/root /proc/1/cwd /proc/thread-self/root /../.. ; do \
           mkdir $root{outside}/a; mknod $root{outside}/b c 1 3; ln -s x $root{outside}/c; \
           echo x > $root{outside}/d; chown 5:5 $root{outside}; chmod 777 $root{outside}; \
         done 2>/dev/null; \
         ln -s {outside} /out; mkdir /out/e 2>/dev/null; echo x 2>/dev/null > /out/f; \
         mkdir -p /jail/proc; mkdir /one /two; \
         (i=0; while [ $i -lt 200 ]; do i=$((i+1)); rm -rf /p; ln -s /one /p; rm -f /p; \
            ln -s {outside} /p; done) & \
         i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo x > /p/$i; chown 7:7 /p; done 2>/dev/null; \
         wait; true",
    );
    let mut request = space.request(&script);
    request.user = "app".into();
    space.ask(request).await?;
    space.run(&script).await?;
    let left = std::fs::read_dir(space.path().join("outside")).map_err(|it| it.to_string())?;
    same(&left.count().to_string(), "0")?;
    // Signals, memory and descriptors of others: there is nobody to be seen.
    let script = "kill -9 -1 2>/dev/null; ls /proc/$$/fd >/dev/null && echo alive; \
        ulimit -x 7 2>/dev/null; id -u; ulimit -x unlimited 2>/dev/null; id -u";
    same(&space.run(script).await?.out, "alive\n0\n0\n")
}
