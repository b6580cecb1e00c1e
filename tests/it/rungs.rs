//! One image, however its steps are held and its layers are made.

use std::process::Command;

use rbuild_tests::disk::Disk;
use rbuild_tests::ran::{Ran, Running};
use rbuild_tests::space::TestSpace;
use rbuild_tests::{host, needs};

/// What tells rungs and drivers apart where one of them is wrong: owners, set-id bits, links, what is
/// made by who is not root and by who changes its user, a directory that hands its group on.
pub(crate) const DOCKERFILE: &str = "\
FROM @BASE@
RUN mkdir /d && cd /d && echo a > a && ln a b && ln -s a l && chown -h 7:8 l && chown 5:6 a \
 && chmod 6755 a && mkfifo p && chown 1:2 p && mkdir g && chown 3:4 g && chmod 2775 g && mkdir g/in \
 && mkdir /w && chown 1234:4321 /w
USER 1234:4321
RUN cd /w && echo x > f && chmod 640 f && ln -s f l && mkdir d && mkfifo p && mv l m
USER 0
RUN rm /d/b && mv /d/p /d/q && mv /w/m /w/n && echo more >> /w/f && rm -r /d/g/in
RUN mkdir /k && ln -s x /k/l && mkfifo /k/p && ln -s y /k/m
RUN chown -h 5:6 /k/l /k/p && chown -h 7 /k/m && mv /k/m /k/n && ln /k/p /k/q
RUN --mount=type=cache,target=/c,uid=9 --mount=type=tmpfs,target=/t echo x > /c/x && echo y > /t/y
";

/// Devices, what hides what is below, users who change, secrets.
const MORE: &str = "\
RUN mkdir /n && mknod -m 640 /n/c c 1 3 && mknod /n/b b 7 200 && chown 3:4 /n/c && ln /n/b /n/l && cp -a /n /m && echo lost > /m/c
RUN mv /n/c /n/d && rm -r /m && mkdir /m && echo new > /m/f && rm -r /usr/bin && mkdir /usr/bin
RUN echo team:x:700: >> /etc/group && echo web:x:701:700::/home/web:/bin/sh >> /etc/passwd \
 && mkdir -p /home/web && chown web:team /home/web && su web -c 'cd; umask 027; mkdir -p x/y; echo z > x/y/z; ln x/y/z hard; chmod 2750 x' \
 && cp /bin/busybox /own && chown web:team /own && chmod 4710 /own && tar -C /home/web -cf /t.tar . && mkdir /u && tar -C /u -xpf /t.tar && rm /t.tar
RUN for it in 1 2 3; do cp /own /s$it && chown web:team /s$it && chmod 6755 /s$it; done; echo >> /s1; su web -c 'echo >> /s2'; truncate -s 9 /s3
RUN --mount=type=secret,id=token,uid=701,mode=400 su web -c 'wc -c < /run/secrets/token' > /size
COPY --chown=web:team --chmod=2751 Dockerfile /copied/
";

#[test]
fn every_rung_and_driver_gives_the_same_digest() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write_bytes("home/token", b"s3cr3t");
    space.write("Dockerfile", &format!("{DOCKERFILE}{MORE}"));
    let mut digests = Vec::new();
    for isolation in ["userns", "userns-single"] {
        for driver in ["overlay", "plain"] {
            let arguments = [
                &format!("--isolation={isolation}"),
                &format!("--snapshotter={driver}"),
                "--no-cache",
                "--secret=id=token,src=@SPACE@/home/token",
                "--build-arg=SOURCE_DATE_EPOCH=1000000000",
                "--iidfile=@OUT@/id",
                "--output=type=oci,dest=@OUT@/image.tar,rewrite-timestamp=true",
            ];
            space.build(&arguments).success();
            digests.push((isolation, driver, space.read("out/id")));
        }
    }
    assert!(digests.iter().all(|it| it.2 == digests[0].2), "{digests:?}");
}

/// What an overlay hides, copies and links, without what old versions of the helper lose.
const HIDDEN: &str = "\
FROM @BASE@
RUN mkdir -p /d/e /o/a && echo a > /d/a && ln /d/a /d/b && ln -s a /d/l && echo x > /o/x && chown 5:6 /d/a
RUN rm /d/b && echo more >> /d/a && rm -r /o && mkdir /o && echo y > /o/y && mkfifo /q && rm -r /d/e && mkdir -p /n/m && mknod /n/c c 1 3
RUN --mount=type=cache,target=/c --mount=type=bind,from=made,target=/m,rw ls /o /d /n > /seen && echo z > /m/z && cp /m/f /c/ && mv /n/c /n/d && rm /o/y
COPY --from=made /f /copied
RUN --mount=type=bind,from=made,target=/m ls /m /copied >> /seen; chown -R 7:8 /d; rm -r /usr/bin && mkdir /usr/bin
";

/// Runs `rbuild ARGS` as who runs it in tests, where everybody may open `/dev/fuse`.
fn with_fuse(space: &TestSpace, args: &[&str]) -> Ran {
    let inner = space.command(args);
    let device = "mount -t tmpfs none $0 && mknod -m 666 $0/fuse c 10 229 && \
                  mount --bind $0/fuse /dev/fuse && umount -l $0";
    let user = host::runner();
    let user = format!("setpriv --reuid={} --regid={} --clear-groups", user.uid, user.gid);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{device} && exec {user} \"$@\"")]);
    command.arg(space.dir("device")).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().envs(inner.get_envs().filter_map(|it| Some((it.0, it.1?))));
    Running::start(command.current_dir(space.path("context"))).wait()
}

#[test]
fn overlays_by_a_helper_give_the_same_digest() {
    needs!(Root, Ids, Program("busybox"), Program("fuse-overlayfs"), Program("setpriv"), Fuse);
    let (space, _registry) = TestSpace::with_busybox();
    space.write_bytes("home/token", b"s3cr3t");
    // What a helper does not keep is told, and not tried.
    let doctor = with_fuse(&space, &["doctor", "--format=json"]).success().text();
    let doctor: serde_json::Value = serde_json::from_str(&doctor).unwrap();
    let asked = doctor["questions"].as_array().unwrap();
    let found = asked.iter().find(|it| it["question"] == "fuse-overlayfs").unwrap();
    let works = found["works"] == true;
    assert!(works || found["remedies"][0].as_str().is_some(), "{found}");
    let made = "FROM @BASE@ AS made\nRUN echo f > /f && mkdir /g\nRUN rm -r /g && echo h > /h\n";
    let mut texts = vec![format!("{made}{HIDDEN}")];
    texts.extend(works.then(|| format!("{DOCKERFILE}{MORE}")));
    for text in texts {
        space.write("Dockerfile", &text);
        let mut digests = Vec::new();
        for isolation in ["userns", "userns-single"] {
            for driver in ["overlay", "fuse-overlayfs", "plain"] {
                let arguments = [
                    "build",
                    "--progress=plain",
                    &format!("--isolation={isolation}"),
                    &format!("--snapshotter={driver}"),
                    "--no-cache",
                    "--secret=id=token,src=@SPACE@/home/token",
                    "--build-arg=SOURCE_DATE_EPOCH=1000000000",
                    "--iidfile=@OUT@/id",
                    "--output=type=oci,dest=@OUT@/image.tar,rewrite-timestamp=true",
                    ".",
                ];
                let ran = with_fuse(&space, &arguments).success();
                ran.says(&format!("isolation {isolation}, {driver} snapshots"));
                digests.push((isolation, driver, space.read("out/id")));
            }
        }
        assert!(digests.iter().all(|it| it.2 == digests[0].2), "{digests:?}");
    }
}

#[test]
fn a_helper_that_cannot_be_had_is_explained() {
    needs!(Ids, Program("busybox"), Program("fuse-overlayfs"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN true\n");
    let ran = space.build(&["--snapshotter=fuse-overlayfs"]);
    if ran.code != Some(0) {
        ran.ended(3).says("/dev/fuse: ").says("docker run --device /dev/fuse");
    }
}

#[test]
fn whole_trees_share_blocks_where_they_can() {
    needs!(Root, Ids, Program("busybox"), Program("mkfs.xfs"), Program("filefrag"));
    let (space, _registry) = TestSpace::with_busybox();
    let _disk = Disk::in_a_file(&space, "blocks", "xfs", 400);
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS a\nRUN dd if=/dev/urandom of=/big bs=1M count=8 2> /dev/null\n\
         FROM a AS b\nRUN echo b > /b\nFROM a\nRUN echo c > /c\nCOPY --from=b /b /b\n",
    );
    let root = "--root=@SPACE@/blocks/store";
    space.run(&[root, "build", "--snapshotter=plain", "."]).success();
    let find = ["-name", "big", "-exec", "filefrag", "-v", "{}", ";"];
    let found = Command::new("find").arg(space.path("blocks/store")).args(find).output().unwrap();
    let text = String::from_utf8_lossy(&found.stdout);
    let files = text.matches("File size of").count();
    assert!(files > 1 && text.matches("shared").count() >= files, "{text}");
}

/// Gives its arguments the capability to bind low ports, and tells which have it.
const CAPABILITY: &str = r#"
#include <stdio.h>
#include <sys/xattr.h>
int main(int argc, char **argv) {
    unsigned char set[20] = {1, 0, 0, 2, 0, 4}, got[64];
    for (int i = 2; i < argc; i++) {
        if (argv[1][0] == 's' && setxattr(argv[i], "security.capability", set, sizeof set, 0)) return perror(argv[i]), 1;
        printf("%s %zd\n", argv[i], getxattr(argv[i], "security.capability", got, sizeof got));
    }
    return 0;
}
"#;

#[test]
fn capabilities_of_files_are_the_same_everywhere() {
    needs!(Ids, Program("busybox"), Program("gcc"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("capability.c", CAPABILITY);
    let program = space.path("context/capability");
    let compiled = Command::new("gcc")
        .args(["-static", "-O1", "-o"])
        .args([&program, &space.path("context/capability.c")])
        .status();
    assert!(compiled.unwrap().success());
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS made\n\
         COPY capability /\n\
         RUN mkdir /f && cd /f && cp /bin/busybox a && cp a b && cp a c && chown 5:6 a && /capability set a b c && chown 7 c && ln a l\n\
         RUN cd /f && /capability get a b c l > seen && mv a d && chmod 750 d && touch b\n\
         FROM scratch\n\
         COPY --from=made /f /f\n",
    );
    let mut seen = Vec::new();
    for isolation in ["userns", "userns-single"] {
        for driver in ["overlay", "plain"] {
            let arguments = [
                &format!("--isolation={isolation}"),
                &format!("--snapshotter={driver}"),
                "--no-cache",
            ];
            let tree = space.image(&arguments.map(|it| it as &str)).tree();
            let have = |path: &str| tree.at(path).xattrs.contains_key("security.capability");
            // A change of owner takes it away, a move does not.
            seen.push((tree.read("f/seen"), ["f/d", "f/b", "f/c"].map(have), tree.to_string()));
        }
    }
    assert_eq!(seen[0].0, "a 20\nb 20\nc -1\nl 20\n");
    assert_eq!(seen[0].1, [true, true, false]);
    assert!(seen.iter().all(|it| *it == seen[0]), "{seen:?}");
}

/// Sets a list with a user and a group of their own on a file, and one for all that is new on a
/// directory, in which it makes something.
const ACCESS_LISTS: &str = r#"
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/xattr.h>
struct { uint32_t version; struct { uint16_t tag, bits; uint32_t id; } all[6]; } list =
    {2, {{1, 6, -1}, {2, 7, 5}, {4, 4, -1}, {8, 6, 6}, {16, 7, -1}, {32, 4, -1}}};
int main() {
    int file = open("/l/file", O_CREAT | O_WRONLY, 0600);
    mkdir("/l/dir", 0700);
    if (fsetxattr(file, "system.posix_acl_access", &list, sizeof list, 0)) return 1;
    if (setxattr("/l/dir", "system.posix_acl_default", &list, sizeof list, 0)) return 2;
    if (open("/l/dir/file", O_CREAT | O_WRONLY, 0666) < 0 || mkdir("/l/dir/dir", 0777)) return 3;
    return removexattr("/l/dir", "system.posix_acl_default") ? 4 : 0;
}
"#;

#[test]
fn modes_that_come_of_access_lists_are_the_same_everywhere() {
    needs!(Ids, Program("busybox"), Program("gcc"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("lists.c", ACCESS_LISTS);
    let (source, program) = (space.path("context/lists.c"), space.path("context/lists"));
    let compiled =
        Command::new("gcc").args(["-static", "-w", "-o"]).args([&program, &source]).status();
    assert!(compiled.unwrap().success());
    space.write(
        "Dockerfile",
        "FROM @BASE@ AS made\nCOPY lists /\nRUN mkdir /l && chown 7:8 /l && /lists && chown 7 /l/file\n\
         FROM scratch\nCOPY --from=made /l /l\n",
    );
    let mut seen = Vec::new();
    for isolation in ["userns", "userns-single"] {
        for driver in ["overlay", "plain"] {
            let arguments = [
                &format!("--isolation={isolation}"),
                &format!("--snapshotter={driver}"),
                "--no-cache",
            ];
            seen.push(space.image(&arguments.map(|it| it as &str)).tree().to_string());
        }
    }
    assert!(seen[0].contains("-0674 7:0 l/file\n"), "{}", seen[0]);
    assert!(seen.iter().all(|it| *it == seen[0]), "{seen:#?}");
}

#[test]
fn a_store_without_attributes_gives_the_same_digest() {
    needs!(Root, Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write_bytes("home/token", b"s3cr3t");
    let _disk = Disk::mount(&space, "plain", "ramfs", "mode=755");
    // Owners of what was there before, and of what a step only writes to.
    let more = "RUN [ $(stat -c %u:%a /home/app) = 1000:750 ] && [ $(stat -c %u:%a /d/a) = 5:6755 ] \\\n \
                && echo again >> /w/f && mv /home/app /home/other && mv /d/g /g\n\
                RUN [ $(stat -c %u:%a /home/other) = 1000:750 ] && touch /home/other\n";
    space.write("Dockerfile", &format!("{DOCKERFILE}{more}{MORE}"));
    let build = |root: &str, isolation: &str| {
        let arguments = [
            &format!("--root=@SPACE@/{root}"),
            "build",
            &format!("--isolation={isolation}"),
            "--secret=id=token,src=@SPACE@/home/token",
            "--build-arg=SOURCE_DATE_EPOCH=1000000000",
            "--iidfile=@OUT@/id",
            "--output=type=oci,dest=@OUT@/image.tar,rewrite-timestamp=true",
            ".",
        ];
        space.run(&arguments).success();
        space.read("out/id")
    };
    let expected = build("store", "userns");
    assert_eq!(build("plain/store/one", "userns-single"), expected);
    assert_eq!(build("plain/store/range", "userns"), expected);
}

#[test]
fn a_rung_that_is_not_there_is_an_error_of_the_host() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN true\n");
    let ran = space.build(&["--isolation=ptrace"]);
    assert_eq!(ran.code, Some(3), "{}", ran.story());
    let ran = space.build(&["--isolation=userns-single", "--require-isolation=userns"]);
    assert_eq!(ran.code, Some(3), "{}", ran.story());
    assert!(ran.stderr.contains("--isolation=userns-single is weaker"), "{}", ran.story());
}

/// Becomes its arguments while somebody else listens to their system calls already.
const LISTENS: &str = r"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sock_filter allow = {6, 0, 0, SECCOMP_RET_ALLOW};
    struct sock_fprog program = {1, &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (fd < 0 || fcntl(fd, F_SETFD, 0)) return 1;
    execv(argv[1], argv + 1);
    return 1;
}
";

/// Builds where another program listens; tells what was said.
fn listened_to(space: &TestSpace, rung: &str) -> String {
    space.write_bytes("tmp/listens.c", LISTENS.as_bytes());
    let listens = space.path("tmp/listens");
    let compiled = Command::new("gcc")
        .args(["-static", "-O1", "-o"])
        .args([&listens, &space.path("tmp/listens.c")])
        .status();
    assert!(compiled.unwrap().success());
    let isolation = format!("--isolation={rung}");
    let out = "type=oci,dest=@OUT@/image.tar";
    let rbuild = space.command(&["build", "--progress=plain", &isolation, "--output", out, "."]);
    let mut outer = Command::new(listens);
    outer.arg(rbuild.get_program()).args(rbuild.get_args()).env_clear();
    outer.envs(rbuild.get_envs().filter_map(|it| Some((it.0, it.1?))));
    outer.current_dir(space.path("context"));
    let ran = space.as_runner(&mut outer).output().unwrap();
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{told}");
    told
}

#[test]
fn where_another_program_listens_owners_are_lost_and_it_is_said() {
    needs!(Ids, Program("busybox"), Program("gcc"));
    let (space, _registry) = TestSpace::with_busybox();
    space.write("Dockerfile", "FROM @BASE@\nRUN echo x > /f && chown 5:6 /f && chmod 640 /f\n");
    let told = listened_to(&space, "userns-single");
    assert!(told.contains("owners cannot be recorded"), "{told}");
    let tree = rbuild_tests::image::Image::read(&space.path("out/image.tar")).tree();
    let file = tree.at("f");
    assert_eq!((file.uid, file.gid, file.mode), (0, 0, 0o640));
}

#[test]
fn without_namespaces_another_listener_costs_the_files_of_the_kernel_alone() {
    needs!(Root, Program("busybox"), Program("gcc"));
    let (space, _registry) = TestSpace::own_with_busybox();
    space.write(
        "Dockerfile",
        "FROM @BASE@\nRUN echo x > /f && chown 5:6 /f && chmod 2640 /f && echo y > /dev/null && cat /proc/version\n",
    );
    let told = listened_to(&space, "chroot");
    assert!(told.contains("/proc and /sys of this step are all but empty"), "{told}");
    let tree = rbuild_tests::image::Image::read(&space.path("out/image.tar")).tree();
    let file = tree.at("f");
    assert_eq!((file.uid, file.gid, file.mode), (5, 6, 0o2640));
}
