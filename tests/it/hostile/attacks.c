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

static const struct { const char *name; int (*run)(void); } ATTACKS[] = {
    {"read-outside", read_outside}, {"write-outside", write_outside}, {"chroot-escape", chroot_escape},
    {"passed-descriptor", passed_descriptor}, {"inherited-descriptors", inherited_descriptors},
    {"outside-processes", outside_processes}, {"neighbours", neighbours},
    {"signals-by-descriptor", signals_by_descriptor}, {"programs", programs}, {"visible-processes", visible_processes}, {"abstract-socket", abstract_socket},
    {"mounts", mounts}, {"namespaces", namespaces}, {"the-kernel", the_kernel}, {"raw-disk", raw_disk},
    {"more-capabilities", more_capabilities}, {"listener", listener}, {"racing-pointers", racing_pointers},
};

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "linger")) {
        for (int i = 1; i < 32; i++) signal(i, SIG_IGN);
        if (fork()) return 0;
        setsid();
        if (fork()) return 0;
        for (;;) pause();
    }
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
