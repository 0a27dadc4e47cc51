/* Spools that would vanish, told by samples of /proc/self/mountinfo. */
#include "base/base.h"
#include "config/spoolcheck.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ID "0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"
#define POD "/var/lib/kubelet/pods/6f1c9a52-0000-4000-8000-1234567890ab/volumes"

static const char docker[] =
    "612 500 0:55 / / rw,relatime master:239 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A,upperdir=/u\n"
    "613 612 0:58 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n"
    "614 612 0:59 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755\n"
    "615 612 254:1 /var/lib/docker/volumes/" ID "/_data /anonymous rw,relatime - ext4 /dev/vda1 rw\n"
    "616 612 254:1 /var/lib/docker/volumes/relayd-spool/_data /named rw,relatime - ext4 /dev/vda1 rw\n"
    "617 612 254:1 /srv/spool /bound rw,relatime master:1 propagate_from:2 - ext4 /dev/vda1 rw\n"
    "618 612 0:60 / /with\\040blank rw - tmpfs tmpfs rw\n"
    "619 612 254:1 /home/u/.local/share/containers/storage/volumes/" ID "/_data /podman rw - xfs /dev/vda1 rw\n"
    "620 612 0:61 / /named/hidden rw - tmpfs tmpfs rw\n"
    "621 612 254:1 /srv/x /named/hidden rw - ext4 /dev/vda1 rw\n";

static const char kubernetes[] =
    "700 600 0:90 / / ro,relatime - overlay overlay rw,lowerdir=/x\n"
    "701 700 254:1 " POD "/kubernetes.io~empty-dir/spool /var/spool/relayd rw,relatime - ext4 /dev/sda1 rw\n"
    "702 700 0:91 / /memory rw,relatime - tmpfs tmpfs rw,size=65536k\n"
    "703 700 8:16 / /claim rw,relatime - ext4 /dev/sdb rw\n"
    "704 700 254:1 " POD "/kubernetes.io~csi/pvc-1/mount /csi rw,relatime - xfs /dev/sda1 rw\n";

static const char machine[] = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
			      "30 22 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw\n"
			      "31 22 0:26 / /tmp rw shared:6 - tmpfs tmpfs rw\n"
			      "32 22 254:2 / /var rw shared:7 - btrfs /dev/vdb rw\n";

static const struct {
	const char *mountinfo, *path;
	enum spool_kind kind;
} rows[] = {
    {docker, "/var/spool/relayd", SPOOL_OVERLAY},
    {docker, "/anonymous", SPOOL_ANONYMOUS_VOLUME},
    {docker, "/anonymous/deeper", SPOOL_ANONYMOUS_VOLUME},
    {docker, "/anonymously", SPOOL_OVERLAY},
    {docker, "/named/spool", SPOOL_KEPT},
    {docker, "/bound", SPOOL_KEPT},
    {docker, "/dev/shm/spool", SPOOL_TMPFS},
    {docker, "/with blank/spool", SPOOL_TMPFS},
    {docker, "/with", SPOOL_OVERLAY},
    {docker, "/podman", SPOOL_ANONYMOUS_VOLUME},
    {docker, "/named/hidden/x", SPOOL_KEPT},
    {kubernetes, "/var/spool/relayd", SPOOL_EMPTY_DIR},
    {kubernetes, "/var/spool", SPOOL_OVERLAY},
    {kubernetes, "/memory/spool", SPOOL_TMPFS},
    {kubernetes, "/claim/spool", SPOOL_KEPT},
    {kubernetes, "/csi", SPOOL_KEPT},
    {machine, "/var/spool/relayd", SPOOL_KEPT},
    {machine, "/srv/spool", SPOOL_KEPT},
    {machine, "/run/relayd", SPOOL_TMPFS},
    {machine, "/", SPOOL_KEPT},
    {"", "/var/spool/relayd", SPOOL_KEPT},
    {"garbage\n\n - - -\n1 2 3\n", "/var/spool/relayd", SPOOL_KEPT},
};

static void each_kind_is_told(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		enum spool_kind kind = spool_kind_of_mountinfo(slice_of_str(rows[i].mountinfo), rows[i].path);
		assert_string_equal(spool_kind_name(kind), spool_kind_name(rows[i].kind));
	}
}

static void a_path_that_does_not_exist_yet_is_where_its_parent_is(void **state)
{
	enum spool_kind parent, child;
	struct err err;

	(void)state;
	assert_int_equal(spool_kind_of_path("/proc", &parent, &err), 0);
	assert_int_equal(spool_kind_of_path("/", &parent, &err), 0);
	assert_int_equal(spool_kind_of_path("/does-not-exist-relayd/a/b", &child, &err), 0);
	assert_int_equal(parent, child);
	assert_int_equal(spool_kind_of_path("relative", &child, &err), ERR_SYNTAX);
}

static void the_words_say_what_to_write(void **state)
{
	static const enum spool_kind kinds[] = {SPOOL_OVERLAY, SPOOL_TMPFS, SPOOL_ANONYMOUS_VOLUME, SPOOL_EMPTY_DIR};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		struct buf out;
		char text[2048];
		buf_init(&out, sizeof(text));
		spool_kind_explain(kinds[i], "/var/spool/relayd", &out);
		assert_true(slice_to_cstr(buf_slice(&out), text, sizeof(text)));
		assert_non_null(strstr(text, "volumeClaimTemplates"));
		assert_non_null(strstr(text, "mountPath: /var/spool/relayd"));
		assert_non_null(strstr(text, "ephemeral_spool: allow"));
		if (kinds[i] != SPOOL_EMPTY_DIR)
			assert_non_null(strstr(text, "relayd-spool:/var/spool/relayd"));
		assert_int_equal(text[strlen(text) - 1], '\n');
		buf_fini(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_kind_is_told),
	    cmocka_unit_test(a_path_that_does_not_exist_yet_is_where_its_parent_is),
	    cmocka_unit_test(the_words_say_what_to_write),
	};
	return cmocka_run_group_tests_name("vanishing spool", tests, NULL, NULL);
}
