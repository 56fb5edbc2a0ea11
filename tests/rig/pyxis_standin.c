/*
 * Pyxis' --container-* options → a task in a mount namespace of its own, on the host's programs.
 *
 * Pyxis (https://github.com/NVIDIA/pyxis#usage) is not packaged, and there is no registry to pull images from. This SPANK plugin
 * takes the same options through the real sbatch and srun, so that a script with containers is really parsed, propagated and
 * run. As in a container, the mounts exist only for the task, files written outside them are gone when it ends, and the working
 * folder is --container-workdir. Unlike in one, the root file system is the host's, seen through an overlay.
 *
 * An image whose name contains "missing" cannot be imported, like one that the registry does not have; nor can a file that is not there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <slurm/spank.h>

SPANK_PLUGIN(pyxis, 1);

enum { IMAGE, MOUNTS, WORKDIR, OTHER };
static char *values[OTHER + 1];

static int remember(int which, const char *argument, int remote)
{
	(void) remote;
	free(values[which]);
	values[which] = argument ? strdup(argument) : NULL;
	return 0;
}

static struct spank_option options[] = {
	{"container-image", "IMAGE", "image to run the task in", 1, IMAGE, remember},
	{"container-mounts", "SRC:DST[:FLAGS],...", "mounts of the container", 1, MOUNTS, remember},
	{"container-workdir", "PATH", "working folder in the container", 1, WORKDIR, remember},
	{"container-name", "NAME", "accepted, no effect", 1, OTHER, remember},
	{"container-save", "PATH", "accepted, no effect", 1, OTHER, remember},
	{"container-env", "NAME,...", "accepted, no effect", 1, OTHER, remember},
	{"container-mount-home", NULL, "accepted, no effect", 0, OTHER, remember},
	{"no-container-mount-home", NULL, "accepted, no effect", 0, OTHER, remember},
	{"container-remap-root", NULL, "accepted, no effect", 0, OTHER, remember},
	{"no-container-remap-root", NULL, "accepted, no effect", 0, OTHER, remember},
	{"container-entrypoint", NULL, "accepted, no effect", 0, OTHER, remember},
	{"no-container-entrypoint", NULL, "accepted, no effect", 0, OTHER, remember},
	{"container-writable", NULL, "accepted, no effect", 0, OTHER, remember},
	{"container-readonly", NULL, "accepted, no effect", 0, OTHER, remember},
	SPANK_OPTIONS_TABLE_END
};

int slurm_spank_init(spank_t spank, int argc, char **argv)
{
	(void) argc;
	(void) argv;
	for (struct spank_option *option = options; option->name; option++)
		if (spank_option_register(spank, option) != ESPANK_SUCCESS)
			return -1;
	return 0;
}

static int fail(const char *what, const char *path)
{
	slurm_error("pyxis: %s %s: %s", what, path, strerror(errno));
	return -1;
}

static int make_folders(const char *path)
{
	char copy[PATH_MAX];
	if (snprintf(copy, sizeof copy, "%s", path) >= (int) sizeof copy)
		return -1;
	for (char *at = copy + 1; *at; at++) {
		if (*at != '/')
			continue;
		*at = '\0';
		if (mkdir(copy, 0755) && errno != EEXIST)
			return -1;
		*at = '/';
	}
	return mkdir(copy, 0755) && errno != EEXIST ? -1 : 0;
}

static int bind(const char *source, const char *root, const char *target)
{
	char path[PATH_MAX];
	struct stat about;
	if (stat(source, &about))
		return fail("no such mount source", source);
	if (snprintf(path, sizeof path, "%s%s", root, target) >= (int) sizeof path)
		return fail("path too long", target);
	if (S_ISDIR(about.st_mode)) {
		if (make_folders(path))
			return fail("cannot make mount point", target);
	} else {
		FILE *file = fopen(path, "a");
		if (!file)
			return fail("cannot make mount point", target);
		fclose(file);
	}
	if (mount(source, path, NULL, MS_BIND | MS_REC, NULL))
		return fail("cannot mount", target);
	return 0;
}

/* SRC:DST[:FLAGS][,SRC:DST[:FLAGS]...]; a single path stands for itself */
static int bind_mounts(const char *root)
{
	char *state = NULL;
	char *all = values[MOUNTS] ? strdup(values[MOUNTS]) : NULL;
	for (char *one = all ? strtok_r(all, ",", &state) : NULL; one; one = strtok_r(NULL, ",", &state)) {
		char *target = strchr(one, ':');
		if (target) {
			*target++ = '\0';
			char *flags = strchr(target, ':');
			if (flags)
				*flags = '\0';
		}
		if (bind(one, root, target ? target : one))
			return -1;
	}
	free(all);
	return 0;
}

static int enter(const char *base)
{
	static const char *const host[] = {"/proc", "/sys", "/dev", "/run", NULL};
	char root[PATH_MAX], layers[PATH_MAX * 2 + 64];
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL))
		return fail("cannot make a mount namespace", "");
	if (mount("tmpfs", base, "tmpfs", 0, NULL))
		return fail("cannot mount tmpfs on", base);
	static const char *const parts[] = {"root", "upper", "work", NULL};
	for (const char *const *part = parts; *part; part++) {
		snprintf(root, sizeof root, "%s/%s", base, *part);
		if (mkdir(root, 0755))
			return fail("cannot make", root);
	}
	snprintf(layers, sizeof layers, "lowerdir=/,upperdir=%s/upper,workdir=%s/work", base, base);
	snprintf(root, sizeof root, "%s/root", base);
	if (mount("overlay", root, "overlay", 0, layers))
		return fail("cannot mount an overlay on", root);
	for (const char *const *folder = host; *folder; folder++)
		if (bind(*folder, root, *folder))
			return -1;
	if (bind_mounts(root))
		return -1;
	if (chroot(root) || chdir("/"))
		return fail("cannot change root to", root);
	return 0;
}

/* plugstack.conf gives an empty folder as the only argument: the container's layers are mounted there */
int slurm_spank_task_init_privileged(spank_t spank, int argc, char **argv)
{
	if (!values[IMAGE])
		return 0;
	if (strstr(values[IMAGE], "missing")) {
		slurm_error("pyxis: failed to import docker image");
		slurm_error("pyxis: [ERROR] URL https://registry-1.docker.io/v2/%s returned error code: 404 Not Found", values[IMAGE]);
		return -1;
	}
	if (values[IMAGE][0] == '/' && access(values[IMAGE], R_OK))
		return fail("no such image file", values[IMAGE]);
	if (argc != 1 || enter(argv[0]))
		return -1;
	spank_setenv(spank, "PYXIS_STANDIN_IMAGE", values[IMAGE], 1);
	return 0;
}

int slurm_spank_task_init(spank_t spank, int argc, char **argv)
{
	(void) spank;
	(void) argc;
	(void) argv;
	if (values[IMAGE] && values[WORKDIR] && chdir(values[WORKDIR]))
		return fail("cannot change to", values[WORKDIR]);
	return 0;
}
