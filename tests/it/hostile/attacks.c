/* What a hostile step tries. Each attack prints "kept NAME", or "BROKEN NAME: how" where it got through.
 * Arguments: a file outside of the step's tree, a process outside, the name of an abstract socket outside. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *marker, *abstract_name;
static pid_t outsider;
static char how[4096];

static int broke(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(how, sizeof how, format, list);
    va_end(list);
    return 1;
}

/* A system call that must fail. */
#define REFUSED(number, ...) \
    do { \
        errno = 0; \
        if (syscall(number, ##__VA_ARGS__) >= 0) return broke("%s succeeded", #number); \
    } while (0)

static const char *WAYS[] = {"", "/proc/1/root", "/proc/self/root", "/proc/1/cwd", "/proc/self/cwd", "/proc/thread-self/root", "/../../..", "/proc/self/task/../root"};

static int reads(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    close(fd);
    return 1;
}

static int read_outside(void) {
    char path[4096];
    for (size_t i = 0; i < sizeof WAYS / sizeof *WAYS; i++) {
        snprintf(path, sizeof path, "%s%s", WAYS[i], marker);
        if (reads(path)) return broke("%s", path);
    }
    unlink("/tmp/out");
    if (symlink(marker, "/tmp/out") == 0 && reads("/tmp/out")) return broke("a symbolic link");
    for (int fd = 0; fd < 3; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d/..%s", fd, marker);
        if (reads(path)) return broke("%s", path);
    }
    return 0;
}

static int write_outside(void) {
    char path[4096], dir[4096];
    snprintf(dir, sizeof dir, "%s", marker);
    *strrchr(dir, '/') = 0;
    for (size_t i = 0; i < sizeof WAYS / sizeof *WAYS; i++) {
        snprintf(path, sizeof path, "%s%s/planted", WAYS[i], dir);
        if (open(path, O_WRONLY | O_CREAT, 0666) >= 0) return broke("open %s", path);
        if (mkdir(path, 0777) == 0) return broke("mkdir %s", path);
        if (mknod(path, S_IFCHR | 0666, 0x103) == 0) return broke("mknod %s", path);
        if (symlink("x", path) == 0) return broke("symlink %s", path);
        snprintf(path, sizeof path, "%s%s", WAYS[i], marker);
        if (chown(path, 5, 5) == 0 || chmod(path, 0777) == 0 || truncate(path, 0) == 0) return broke("change %s", path);
        if (setxattr(path, "user.x", "x", 1, 0) == 0) return broke("setxattr %s", path);
    }
    return 0;
}

static int chroot_escape(void) {
    int root = open("/", O_RDONLY | O_DIRECTORY);
    mkdir("/tmp/jail", 0777);
    if (chroot("/tmp/jail") != 0) return 0;
    fchdir(root);
    for (int i = 0; i < 64; i++) chdir("..");
    chroot(".");
    return reads(marker) ? broke("the outside") : 0;
}

/* A descriptor of a directory goes into a jail by a socket: that jail is left, the step's tree is not. */
static int passed_descriptor(void) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return 0;
    char space[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec io = {&byte, 1};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int));
    int root = open("/", O_PATH | O_DIRECTORY);
    memcpy(CMSG_DATA(header), &root, sizeof root);
    if (sendmsg(pair[0], &message, 0) != 1) return 0;
    if (recvmsg(pair[1], &message, 0) != 1) return 0;
    memcpy(&root, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof root);
    char path[4096];
    snprintf(path, sizeof path, "../../../..%s", marker);
    int fd = openat(root, path, O_RDONLY);
    return fd >= 0 ? broke("%s below a passed descriptor", path) : 0;
}

static int inherited_descriptors(void) {
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) return broke("descriptor %d is open", fd);
    return 0;
}

static int outside_processes(void) {
    if (kill(outsider, 0) == 0) return broke("kill");
    if (syscall(SYS_tgkill, outsider, outsider, 0) == 0) return broke("tgkill");
    if (ptrace(PTRACE_ATTACH, outsider, 0, 0) == 0) return broke("ptrace");
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    if (process_vm_readv(outsider, &here, 1, &there, 1, 0) == 1) return broke("process_vm_readv");
    int fd = syscall(SYS_pidfd_open, outsider, 0);
    if (fd >= 0 && syscall(SYS_pidfd_send_signal, fd, 0, 0, 0) == 0) return broke("pidfd_send_signal");
    if (fd >= 0 && syscall(SYS_pidfd_getfd, fd, 0, 0) >= 0) return broke("pidfd_getfd");
    long limit[2] = {512, 512}, mask = 1, priority = 0;
    siginfo_t info = {.si_code = SI_QUEUE};
    REFUSED(SYS_prlimit64, outsider, 7, limit, 0);
    REFUSED(SYS_setpriority, 0, outsider, 19);
    REFUSED(SYS_ioprio_set, 1, outsider, 3 << 13);
    REFUSED(SYS_sched_setaffinity, outsider, sizeof mask, &mask);
    REFUSED(SYS_sched_setscheduler, outsider, 0, &priority);
    REFUSED(SYS_sched_setparam, outsider, &priority);
    REFUSED(SYS_rt_sigqueueinfo, outsider, 0, &info);
    REFUSED(SYS_setpgid, outsider, 0);
    REFUSED(SYS_kcmp, getpid(), outsider, 0, 0, 0);
    REFUSED(SYS_move_pages, outsider, 0, 0, 0, 0, 0);
    return 0;
}

/* What is not among the step's own processes cannot be signalled, traced or bound, whatever its number. */
static int neighbours(void) {
    for (pid_t pid = 1; pid < outsider + 4096; pid++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d", pid);
        int reached = kill(pid, 0) == 0 || ptrace(PTRACE_SEIZE, pid, 0, 0) == 0;
        if (reached && access(path, F_OK) != 0) return broke("process %d", pid);
    }
    kill(-1, SIGCONT);
    return 0;
}

/* A descriptor can have the kernel signal somebody when there is something to read. */
static int signals_by_descriptor(void) {
    int pair[2];
    if (pipe(pair)) return 0;
    fcntl(pair[0], F_SETFL, O_ASYNC);
    fcntl(pair[0], F_SETSIG, SIGKILL);
    fcntl(pair[0], F_SETOWN, outsider);
    write(pair[1], "x", 1);
    int owner = outsider;
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    fcntl(pair[0], F_SETFL, O_ASYNC);
    fcntl(pair[0], F_SETSIG, SIGKILL);
    ioctl(pair[0], 0x8901 /* FIOSETOWN */, &owner);
    write(pair[1], "x", 1);
    return 0; /* The test would be dead. */
}

/* The program that holds the step is nowhere to be written to. */
static int programs(void) {
    char path[64];
    for (pid_t pid = 1; pid < 4; pid++) {
        snprintf(path, sizeof path, "/proc/%d/exe", pid == 1 ? 1 : pid == 2 ? getppid() : getpid());
        if (open(path, O_WRONLY) >= 0 || open(path, O_RDWR | O_TRUNC) >= 0) return broke("%s", path);
        if (chmod(path, 0777) == 0 && pid == 1 && getppid() != 1 && getpid() != 1) {
            char target[256] = {0};
            readlink(path, target, sizeof target - 1);
            if (strstr(target, "rbuild")) return broke("chmod of %s", target);
        }
    }
    return 0;
}

/* Nothing that can be seen is rbuild, or has its environment. */
static int visible_processes(void) {
    DIR *all = opendir("/proc");
    for (struct dirent *one; all && (one = readdir(all));) {
        if (one->d_name[0] < '0' || one->d_name[0] > '9') continue;
        for (int i = 0; i < 2; i++) {
            char path[300], text[65536];
            snprintf(path, sizeof path, "/proc/%s/%s", one->d_name, i ? "environ" : "comm");
            int fd = open(path, O_RDONLY);
            if (fd < 0) continue;
            ssize_t length = read(fd, text, sizeof text);
            close(fd);
            if (length > 0 && memmem(text, length, i ? "CANARY" : "rbuild", 6)) return broke("%s", path);
        }
    }
    return 0;
}

static int abstract_socket(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path + 1, abstract_name, strlen(abstract_name));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(abstract_name);
    return connect(fd, (struct sockaddr *)&address, length) == 0 ? broke("connected") : 0;
}

static int mounts(void) {
    REFUSED(SYS_mount, "none", "/tmp", "tmpfs", 0, 0);
    REFUSED(SYS_mount, "/", "/tmp", 0, MS_BIND, 0);
    REFUSED(SYS_mount, 0, "/proc/sys", 0, MS_REMOUNT | MS_BIND, 0);
    REFUSED(SYS_umount2, "/proc", MNT_DETACH);
    REFUSED(SYS_umount2, "/etc/hosts", MNT_DETACH);
    REFUSED(SYS_pivot_root, "/", "/tmp");
    REFUSED(SYS_fsopen, "tmpfs", 0);
    REFUSED(SYS_open_tree, AT_FDCWD, "/", 1);
    REFUSED(SYS_move_mount, AT_FDCWD, "/tmp", AT_FDCWD, "/mnt", 0);
    return 0;
}

static int namespaces(void) {
    REFUSED(SYS_unshare, CLONE_NEWUSER);
    REFUSED(SYS_unshare, CLONE_NEWNS);
    REFUSED(SYS_unshare, CLONE_NEWNET);
    pid_t child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    if (child > 0) return broke("clone");
    struct { unsigned long long flags, rest[10]; } args = {CLONE_NEWUSER};
    child = syscall(SYS_clone3, &args, sizeof args);
    if (child == 0) _exit(0);
    if (child > 0) return broke("clone3");
    int fd = open("/proc/1/ns/mnt", O_RDONLY);
    if (fd >= 0) REFUSED(SYS_setns, fd, 0);
    return 0;
}

static int the_kernel(void) {
    REFUSED(SYS_keyctl, 0, -3, 1);
    REFUSED(SYS_add_key, "user", "x", "x", 1, -3);
    REFUSED(SYS_request_key, "user", "x", 0, 0);
    REFUSED(SYS_bpf, 0, 0, 0);
    REFUSED(SYS_perf_event_open, 0, 0, -1, -1, 0);
    REFUSED(SYS_io_uring_setup, 1, (char[256]){0});
    REFUSED(SYS_userfaultfd, 0);
    REFUSED(SYS_open_by_handle_at, AT_FDCWD, 0, 0);
    REFUSED(SYS_init_module, 0, 0, "");
    REFUSED(SYS_kexec_load, 0, 0, 0, 0);
    REFUSED(SYS_swapon, "/tmp", 0);
    REFUSED(SYS_reboot, 0xfee1dead, 0x28121969, 0, 0);
    REFUSED(SYS_settimeofday, (long[2]){0}, 0);
    REFUSED(SYS_syslog, 3, (char[8]){0}, 8);
    for (const char **path = (const char *[]){"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/proc/kcore", "/sys/power/state", 0}; *path; path++)
        if (open(*path, O_WRONLY) >= 0) return broke("%s can be written to", *path);
    return 0;
}

static int raw_disk(void) {
    unlink("/tmp/disk");
    char sector[512];
    for (int minor = 0; minor < 2; minor++) {
        if (mknod("/tmp/disk", S_IFBLK | 0666, makedev(8, minor)) != 0) return 0;
        int fd = open("/tmp/disk", O_RDONLY);
        if (fd >= 0 && read(fd, sector, sizeof sector) > 0) return broke("block device 8:%d", minor);
        unlink("/tmp/disk");
    }
    return 0;
}

static int more_capabilities(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{~0u, ~0u, ~0u}, {~0u, ~0u, ~0u}};
    REFUSED(SYS_capset, &header, data);
    return 0;
}

/* Who could listen to calls could answer those of a setuid program. */
static int listener(void) {
    struct { unsigned short code; unsigned char jt, jf; unsigned int k; } allow = {6, 0, 0, 0x7fff0000};
    struct { unsigned short length; void *filter; } program = {1, &allow};
    int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    return fd >= 0 ? broke("a second listener") : 0;
}

/* One thread changes a path while others use it: what was looked at is not what is acted on. */
static char racing[4096];
static volatile int stop;
static void *flip(void *other) {
    char here[4096] = "/tmp/race/here";
    while (!stop) {
        memcpy(racing, other, sizeof racing);
        memcpy(racing, here, sizeof racing);
    }
    return 0;
}

static int racing_pointers(void) {
    char there[4096] = {0}, dir[4096];
    snprintf(dir, sizeof dir, "%s", marker);
    *strrchr(dir, '/') = 0;
    snprintf(there, sizeof there, "/proc/1/root%s/raced", dir);
    mkdir("/tmp/race", 0777);
    pthread_t thread;
    pthread_create(&thread, 0, flip, there);
    for (int i = 0; i < 300; i++) {
        int fd = open(racing, O_WRONLY | O_CREAT, 0666);
        if (fd >= 0) close(fd);
        chown(racing, 5, 5), unlink(racing), mkdir(racing, 0777), rmdir(racing), mknod(racing, S_IFCHR, 0x103), unlink(racing), symlink(racing, racing), unlink(racing);
    }
    stop = 1;
    pthread_join(thread, 0);
    /* The same with a directory that is a link now and then. */
    pid_t child = fork();
    if (child == 0)
        for (;;) {
            unlink("/tmp/race/d"), symlink(dir, "/tmp/race/d");
            unlink("/tmp/race/d"), mkdir("/tmp/race/d", 0777), rmdir("/tmp/race/d");
        }
    for (int i = 0; i < 300; i++) {
        int fd = open("/tmp/race/d/raced", O_WRONLY | O_CREAT, 0666);
        if (fd >= 0) close(fd);
        chown("/tmp/race/d", 5, 5), mkdir("/tmp/race/d/dir", 0777), unlink("/tmp/race/d/raced"), rmdir("/tmp/race/d/dir");
    }
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    return 0; /* The test looks at the outside. */
}

/* What the keeper or the first process of the step has in memory, or has open, is no business of the step's. */
static int keepers_memory(void) {
    pid_t all[] = {1, getppid()};
    for (int i = 0; i < 2; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/comm", all[i]);
        char name[16] = {0};
        int fd = open(path, O_RDONLY);
        if (fd >= 0) read(fd, name, sizeof name - 1), close(fd);
        if (!strstr(name, "rbuild")) continue;
        const char *files[] = {"mem", "environ", "maps", "auxv", "fd/0", "fd/3", "map_files", "stack", "syscall"};
        for (size_t j = 0; j < sizeof files / sizeof *files; j++) {
            snprintf(path, sizeof path, "/proc/%d/%s", all[i], files[j]);
            char byte;
            fd = open(path, O_RDONLY);
            if (fd >= 0 && read(fd, &byte, 1) == 1) return broke("%s", path);
        }
    }
    int fd = syscall(SYS_pidfd_open, getppid(), 0);
    for (int i = 3; fd >= 0 && i < 64; i++) {
        int got = syscall(SYS_pidfd_getfd, fd, i, 0);
        struct stat stat;
        if (got >= 0 && fstat(got, &stat) == 0 && (S_ISDIR(stat.st_mode) || S_ISSOCK(stat.st_mode))) return broke("descriptor %d of the parent", i);
    }
    return 0;
}

/* A program that is no file is held as others are. */
static int program_in_memory(void) {
    int memory = syscall(SYS_memfd_create, "x", 1 /* MFD_CLOEXEC */);
    int self = open("/proc/self/exe", O_RDONLY);
    char bytes[65536];
    for (ssize_t length; (length = read(self, bytes, sizeof bytes)) > 0;) write(memory, bytes, length);
    int out[2];
    if (memory < 0 || pipe(out)) return 0;
    pid_t child = fork();
    if (child == 0) {
        dup2(out[1], 1);
        char *argv[] = {"attack", "held", (char *)marker, 0}, *environment[] = {0};
        syscall(SYS_execveat, memory, "", argv, environment, AT_EMPTY_PATH);
        _exit(1);
    }
    close(out[1]);
    char said[64] = {0};
    read(out[0], said, sizeof said - 1);
    waitpid(child, 0, 0);
    return strstr(said, "free") ? broke("%s", said) : 0;
}

/* Handles of files know no tree. */
static int handles(void) {
    struct { struct file_handle handle; unsigned char bytes[128]; } found = {{128}};
    int mount;
    const char *ways[] = {"/", "/etc", "/tmp", "/proc/1/root", "/dev/null"};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        found.handle.handle_bytes = 128;
        if (name_to_handle_at(AT_FDCWD, ways[i], &found.handle, &mount, 0) != 0) continue;
        int dir = open(ways[i], O_RDONLY);
        if (open_by_handle_at(dir, &found.handle, O_RDONLY) >= 0) return broke("handle of %s", ways[i]);
        /* The root directory of ext4 and others. */
        for (unsigned inode = 1; inode < 64; inode++) {
            memset(found.handle.f_handle, 0, 8);
            memcpy(found.handle.f_handle, &inode, 4);
            if (open_by_handle_at(dir, &found.handle, O_RDONLY) >= 0) return broke("inode %u", inode);
        }
    }
    return 0;
}

/* What is typed into a terminal is obeyed by who reads it next. */
static int typing(void) {
    char byte = '\n';
    for (int fd = 0; fd < 3; fd++)
        if (ioctl(fd, TIOCSTI, &byte) == 0) return broke("descriptor %d", fd);
    int tty = open("/dev/tty", O_RDWR);
    if (tty >= 0) return broke("a terminal of somebody's");
    if (ioctl(0, TIOCSCTTY, 1) == 0) return broke("a terminal was taken");
    return 0;
}

/* Where memory can be held up, so can who reads it: a watchdog asks whether the supervisor still answers others. */
static int slow_memory(void) {
    int fd = syscall(SYS_userfaultfd, 0), faults = syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */);
    if (fd >= 0 || faults >= 0) return broke("userfaultfd");
    int fuse = open("/dev/fuse", O_RDWR);
    if (fuse >= 0) return broke("/dev/fuse");
    return 0;
}

/* Calls with addresses that are none, or that change length, end in an error and no worse. */
static int bad_pointers(void) {
    char *end = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(end + 4096, 4096);
    memset(end, 'a', 4096);
    const long bad[] = {0, 1, -1, -4096, (long)(end + 4095), (long)end, 0x7fffffffffff};
    const int calls[] = {SYS_open, SYS_stat, SYS_lstat, SYS_mkdir, SYS_chown, SYS_lchown, SYS_chmod, SYS_mknod, SYS_unlink, SYS_readlink, SYS_access, SYS_chdir, SYS_truncate, SYS_symlink, SYS_rmdir, SYS_execve};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        for (size_t j = 0; j < sizeof bad / sizeof *bad; j++) {
            if (syscall(calls[i], bad[j], bad[j], bad[j], bad[j]) >= 0 && bad[j] != (long)end) return broke("call %d of %lx", calls[i], bad[j]);
            syscall(SYS_openat, AT_FDCWD, bad[j], O_CREAT | O_WRONLY, 0666), syscall(SYS_fchownat, AT_FDCWD, bad[j], 5, 5, 0x1000), syscall(SYS_statx, AT_FDCWD, bad[j], -1, -1, bad[j]);
            syscall(SYS_openat2, AT_FDCWD, bad[j], bad[j], 24), syscall(SYS_setgroups, 65536, bad[j]), syscall(SYS_getgroups, 65536, bad[j]), syscall(SYS_getresuid, bad[j], bad[j], bad[j]);
            syscall(SYS_mknodat, -100, bad[j], S_IFCHR, 0x103), syscall(SYS_setxattr, bad[j], bad[j], bad[j], 64, 0), syscall(SYS_bind, 0, bad[j], 110);
        }
    struct stat stat_of;
    return stat("/", &stat_of) == 0 ? 0 : broke("nobody answers any more");
}

/* A cage of clone3, of every kind of namespace, and of time. */
static int more_namespaces(void) {
    const unsigned long kinds[] = {CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP, 0x80 /* CLONE_NEWTIME */, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        unsigned long long arguments[11] = {kinds[i], 0, 0, 0, SIGCHLD};
        pid_t child = syscall(SYS_clone3, arguments, sizeof arguments);
        if (child == 0) _exit(0);
        if (child > 0) return broke("clone3 of %lx", kinds[i]);
        REFUSED(SYS_unshare, kinds[i]);
    }
    const char *spaces[] = {"mnt", "pid", "net", "user", "ipc", "uts", "cgroup", "time", "pid_for_children"};
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/ns/%s", getppid(), spaces[i]);
        int fd = open(path, O_RDONLY);
        if (fd >= 0) REFUSED(SYS_setns, fd, 0);
    }
    int fd = syscall(SYS_pidfd_open, 1, 0);
    if (fd >= 0) REFUSED(SYS_setns, fd, CLONE_NEWNS);
    return 0;
}

/* Changes of mounts that others would get to see. */
static int propagation(void) {
    unsigned long long attributes[4] = {0, 1 /* MOUNT_ATTR_RDONLY */, MS_SHARED, 0};
    REFUSED(SYS_mount, 0, "/", 0, MS_REC | MS_SHARED, 0);
    REFUSED(SYS_mount, 0, "/", 0, MS_REC | MS_SLAVE, 0);
    REFUSED(SYS_mount, 0, "/", 0, MS_REMOUNT, 0);
    REFUSED(SYS_mount_setattr, AT_FDCWD, "/", 0x8000, attributes, sizeof attributes);
    REFUSED(SYS_fsmount, 0, 0, 0);
    REFUSED(SYS_fspick, AT_FDCWD, "/", 0);
    REFUSED(SYS_quotactl, 0, "/", 0, 0);
    REFUSED(SYS_acct, "/tmp/acct");
    REFUSED(SYS_sethostname, "mine", 4);
    REFUSED(SYS_vhangup);
    REFUSED(SYS_iopl, 3);
    REFUSED(SYS_ioperm, 0, 1, 1);
    REFUSED(SYS_lookup_dcookie, 0, 0, 0);
    REFUSED(SYS_kexec_file_load, 0, 0, 0, 0, 0);
    REFUSED(SYS_finit_module, 0, "", 0);
    REFUSED(SYS_delete_module, "x", 0);
    REFUSED(SYS_clock_settime, 0, (long[2]){0});
    return 0;
}

static const struct { const char *name; int (*run)(void); } ATTACKS[] = {
    {"read-outside", read_outside}, {"write-outside", write_outside}, {"chroot-escape", chroot_escape},
    {"passed-descriptor", passed_descriptor}, {"inherited-descriptors", inherited_descriptors},
    {"outside-processes", outside_processes}, {"neighbours", neighbours},
    {"signals-by-descriptor", signals_by_descriptor}, {"programs", programs}, {"visible-processes", visible_processes}, {"abstract-socket", abstract_socket},
    {"mounts", mounts}, {"namespaces", namespaces}, {"the-kernel", the_kernel}, {"raw-disk", raw_disk},
    {"more-capabilities", more_capabilities}, {"listener", listener}, {"racing-pointers", racing_pointers},
    {"keepers-memory", keepers_memory}, {"program-in-memory", program_in_memory}, {"handles", handles}, {"typing", typing},
    {"slow-memory", slow_memory}, {"bad-pointers", bad_pointers}, {"more-namespaces", more_namespaces}, {"propagation", propagation},
};

/* Directories deeper than paths can be long. */
static int deep(void) {
    int dir = open("/", O_RDONLY | O_DIRECTORY);
    char name[200];
    memset(name, 'd', sizeof name - 1), name[sizeof name - 1] = 0;
    for (int i = 0; i < 60; i++) {
        if (mkdirat(dir, name, 0755)) return 3;
        dir = openat(dir, name, O_RDONLY | O_DIRECTORY);
    }
    return openat(dir, "deepest", O_WRONLY | O_CREAT, 0644) < 0;
}

/* Odd names, what must not be opened, a hole, many names of one file. */
static int wild(void) {
    mkdir("/wild", 0755), chdir("/wild");
    const char *names[] = {"new\nline", "quo\"te", "back\\slash", "\xff\xfe", " ", "-rf", "*", "tab\t", "\r", "\x1b[2J", "...", "\x7f"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (open(names[i], O_WRONLY | O_CREAT, 0644) < 0) return 3;
    if (mkfifo("pipe", 0666)) return 4;
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    if (bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address)) return 5;
    int hole = open("hole", O_WRONLY | O_CREAT, 0644);
    if (pwrite(hole, "end", 3, (64 << 20) - 3) != 3) return 6;
    open("many", O_WRONLY | O_CREAT, 0644);
    for (int i = 0; i < 20000; i++) {
        char name[32];
        snprintf(name, sizeof name, "link-%d", i);
        if (link("many", name)) return 7;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "linger")) {
        for (int i = 1; i < 32; i++) signal(i, SIG_IGN);
        if (fork()) return 0;
        setsid();
        if (fork()) return 0;
        for (;;) pause();
    }
    if (argc > 2 && !strcmp(argv[1], "held")) {
        marker = argv[2];
        int got_out = read_outside() || write_outside() || mounts() || namespaces();
        return puts(got_out ? "free" : "held") < 0;
    }
    if (argc > 1 && !strcmp(argv[1], "wild")) return wild();
    if (argc > 1 && !strcmp(argv[1], "deep")) return deep();
    if (argc < 4) return 2;
    marker = argv[1], outsider = atoi(argv[2]), abstract_name = argv[3];
    for (size_t i = 0; i < sizeof ATTACKS / sizeof *ATTACKS; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            if (ATTACKS[i].run()) printf("BROKEN %s: %s\n", ATTACKS[i].name, how);
            else printf("kept %s\n", ATTACKS[i].name);
            fflush(stdout);
            _exit(0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (!WIFEXITED(status)) printf("BROKEN %s: status %d\n", ATTACKS[i].name, status);
    }
    return 0;
}
