/*
 * The load for PID 1 in the benchmarks: a child that gives it work.
 *
 * usage: load orphans COUNT | load signals COUNT, as the only child of the measured program
 *
 * Both write "ready" and a line break to standard output, wait for a byte on standard input, do their work, and write
 * a result to standard output. The result of "orphans" is "done" once every orphan has ended (PID 1 may still have to
 * reap the last ones). The result of "signals" is COUNT times in nanoseconds, 8 bytes each. Then both wait for the end
 * of standard input.
 */
#define _GNU_SOURCE
#include <err.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const void *what, size_t length)
{
	for (const char *rest = what; length > 0;) {
		ssize_t written = write(STDOUT_FILENO, rest, length);
		if (written < 0)
			err(1, "standard output");
		rest += written;
		length -= written;
	}
}

static void wait_for_go(void)
{
	char byte;
	say("ready\n", 6);
	if (read(STDIN_FILENO, &byte, 1) != 1)
		exit(0);
}

static void wait_for_end(void)
{
	char byte;
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
}

static pid_t forked(void)
{
	pid_t pid = fork();
	if (pid < 0)
		err(1, "fork");
	return pid;
}

/* Each orphan is the child of a process that ends at once and is reaped here. */
static void make_orphans(long count)
{
	int alive[2];
	char byte;

	if (pipe(alive))
		err(1, "pipe");
	wait_for_go();
	while (count-- > 0) {
		pid_t parent = forked();
		if (parent == 0) {
			forked();
			_exit(0);
		}
		if (waitpid(parent, NULL, 0) != parent)
			err(1, "waitpid");
	}
	/* The other end closes when the last process that inherited it has ended. */
	close(alive[1]);
	if (read(alive[0], &byte, 1) != 0)
		err(1, "read");
	say("done\n", 5);
}

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

/* Another process sends the signals, like `docker stop`. It sleeps until this process has received each signal. */
static void take_signals(long count)
{
	uint64_t *times = mmap(NULL, count * sizeof *times, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	int taken = eventfd(0, 0);
	pid_t pid1 = getppid(), here = getpid();
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	if (times == MAP_FAILED || taken < 0 || sigprocmask(SIG_BLOCK, &set, NULL))
		err(1, "preparing to take signals");
	wait_for_go();
	if (forked() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* dumb-init signals the whole process group. */
		if (getppid() != here || setpgid(0, 0))
			err(1, "setpgid");
		for (long i = 0; i < count; i++) {
			uint64_t one;
			times[i] = now();
			if (kill(pid1, SIGUSR1))
				err(1, "kill");
			if (read(taken, &one, sizeof one) != sizeof one)
				err(1, "read");
		}
		_exit(0);
	}
	for (long i = 0; i < count; i++) {
		uint64_t one = 1;
		if (sigwaitinfo(&set, NULL) != SIGUSR1)
			err(1, "sigwaitinfo");
		times[i] = now() - times[i];
		if (write(taken, &one, sizeof one) != sizeof one)
			err(1, "write");
	}
	wait(NULL);
	say(times, count * sizeof *times);
}

int main(int argc, char **argv)
{
	long count = argc == 3 ? atol(argv[2]) : 0;

	if (count > 0 && strcmp(argv[1], "orphans") == 0)
		make_orphans(count);
	else if (count > 0 && strcmp(argv[1], "signals") == 0)
		take_signals(count);
	else
		errx(2, "usage: load orphans|signals COUNT");
	wait_for_end();
	return 0;
}
