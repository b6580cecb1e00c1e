//! Users of an image: who they are, what they make, and what they are kept from, on every rung the
//! same.

use rbuild_tests::needs;
use rbuild_tests::space::TestSpace;

/// What tells users apart, as a step that starts as root writes it down.
const AS_ROOT: &str = r#"
mkdir -p /srv/a /srv/t && chown 1000:2000 /srv/a && chmod 2770 /srv/a && chmod 1777 /srv/t
echo root-only > /root/s; chmod 600 /root/s; cp /root/s /etc/shadow; chmod 640 /etc/shadow
cp /root/s /srv/apps; chown app:extra /srv/apps; chmod 640 /srv/apps; echo x > /srv/t/roots
cat > /as-app <<'END'
id; cat /etc/shadow; cat /root/s; ls /root; cd /root; echo x > /etc/x; echo x >> /etc/passwd
touch /srv/a/f; mkdir /srv/a/d; stat -c '%n %u:%g %a %F' /srv/a/f /srv/a/d
rm -f /etc/group; mv /etc/group /tmp/group; ln /etc/shadow /tmp/shadow; rm -f /srv/t/roots
chmod 777 /etc/passwd; chown app /etc/passwd; touch -d @0 /etc/passwd; truncate -s 0 /etc/passwd
for it in r:/etc/shadow r:/etc/passwd w:/etc/passwd x:/root; do test -${it%%:*} ${it#*:}; echo $it $?; done
: > /tmp/mine; ln -s mine /tmp/link; mkfifo /tmp/pipe; stat -c '%n %u:%g %F' /tmp/mine /tmp/link /tmp/pipe
echo more >> /srv/apps; cat /srv/apps; umask 077; : > /tmp/private; stat -c %a /tmp/private
chroot / true; mknod /tmp/n c 1 3; grep -E '^(Uid|Gid|CapEff)' /proc/self/status
: > /dev/null; cat /proc/self/environ > /dev/null; ls /proc/self/fd > /dev/null; echo $?
END
su app -s /bin/sh -c 'sh -x /as-app'
ln -s /tmp/log /dev/log; su app -s /bin/sh -c 'umask 027; syslogd -n -O /dev/null & i=0
until test "$(stat -c %a /tmp/log)" = 666 || test $i -gt 999; do i=$((i+1)); done
stat -c "%n %u:%g %a %F" /tmp/log; kill $!; wait; rm -f /tmp/log' 2>/dev/null
su nobody -s /bin/sh -c 'id; rm -f /tmp/mine; cat /srv/apps; ls /srv/a; echo b > /srv/t/b; rm -f /srv/t/b; echo $?'
cp /bin/busybox /bin/rcat; chmod 4755 /bin/rcat; ln -s rcat /bin/suid; su app -s /bin/sh -c '/bin/rcat cat /root/s'
cp -a /srv /copy; tar -C / -cf /t.tar srv; tar -C /tmp -xpf /t.tar
chown -R 7:8 /copy/a; chown -h 9:9 /tmp/link; mv /tmp/mine /srv/moved; ln /srv/moved /srv/linked; mv /tmp/link /srv/
chown 5:6 /dev/stdout; echo chowned $?
find /srv /copy /tmp -exec stat -c '%n %u:%g %a %F' {} + > /list; sort /list; rm /list /t.tar
"#;

/// The same for a step that never was root.
const AS_APP: &str = r#"
id; cat /etc/shadow; cat /root/s; echo x > /x; cd ~; pwd; echo a > a; mkdir -p d/e; cp -a d d2; rm -r d; mv a b
stat -c '%n %u:%g %a' . b d2 d2/e; tar -cf t d2 b && tar -xf t; (exec 3</etc/shadow); (exec 3>/etc/y); : > /dev/shm/x
stat -c %u:%g /dev/shm/x; grep -E '^(Uid|Gid|CapEff)' /proc/self/status; setsid true; chown app b; chown 0 b; echo $?
"#;

#[test]
fn users_are_who_they_are_on_every_rung() {
    needs!(Ids, Program("busybox"));
    let (space, _registry) = TestSpace::with_busybox();
    let indented = |script: &str| script.trim().to_owned();
    space.write("as-root", &indented(AS_ROOT));
    space.write("as-app", &indented(AS_APP));
    space.write(
        "Dockerfile",
        "FROM @BASE@\n\
         COPY as-root as-app /\n\
         RUN sh -x /as-root > /root/seen 2>&1; mv /root/seen /seen-by-root\n\
         USER app\n\
         RUN sh -x /as-app > /tmp/seen 2>&1; mv /tmp/seen /tmp/seen-by-app\n",
    );
    let mut seen = Vec::new();
    for isolation in ["userns", "userns-single"] {
        let image = space.image(&[&format!("--isolation={isolation}"), "--no-cache"]);
        let tree = image.tree();
        seen.push((tree.read("seen-by-root"), tree.read("tmp/seen-by-app"), tree.to_string()));
    }
    let (by_root, by_app, _) = &seen[0];
    // What the kernel itself says, where it knows all the ids.
    for refused in ["/etc/shadow", "/root/s", "/etc/x", "/srv/t/roots", "/etc/group", "/tmp/n"] {
        let told = |line: &&str| line.contains(refused) && line.contains("ermi");
        assert!(by_root.lines().any(|line| told(&line)), "{refused} was not refused:\n{by_root}");
    }
    for expected in [
        "uid=1000(app)",
        "/srv/a/f 1000:2000 644 regular empty file",
        "/srv/a/d 1000:2000 2755 directory",
        "r:/etc/shadow 1",
        "r:/etc/passwd 0",
        "chowned 0",
        "/tmp/log 1000:1000 666 socket",
        "Uid:\t1000\t1000\t1000\t1000",
    ] {
        assert!(by_root.contains(expected), "no `{expected}` in\n{by_root}");
    }
    assert!(by_app.contains("Permission denied"), "{by_app}");
    assert_eq!(seen[1].0, *by_root);
    assert_eq!(seen[1].1, *by_app);
    assert_eq!(seen[1].2, seen[0].2);
}
