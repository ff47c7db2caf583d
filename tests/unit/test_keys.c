/* test_keys.c - CURVE key files, the allow-list, and the decisions of ZAP. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "allow_list.h"
#include "curve_keys.h"
#include "scratch.h"
#include "zap.h"

/* From RFC 26 (CurveZMQ); a pair that belongs together. */
#define SECRET "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"
#define PUBLIC "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define OTHER "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"

static struct err e;

static const char *key_file(const char *name, mode_t mode, const char *text)
{
    const char *path = scratch_write(name, text, strlen(text));
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static void expect_message(const char *what, const char *a, const char *b)
{
    if (!strstr(e.message, a) || !strstr(e.message, b))
        fail_msg("%s: '%s' should say '%s' and '%s'", what, e.message, a, b);
    if (strstr(e.message, SECRET))
        fail_msg("'%s' shows a secret key", e.message);
}

/* ---- pairs ---- */

static void made_written_and_read(void **state)
{
    (void)state;
    struct curve_pair p, q, another;
    struct stat st;
    char key[CURVE_KEY_SIZE], name[300];
    assert_int_equal(curve_pair_make(&p, &e), 0);
    assert_int_equal(curve_pair_make(&another, &e), 0);
    assert_string_not_equal(p.public_key, another.public_key);
    snprintf(name, sizeof name, "%s", scratch_path("node"));
    mode_t before = umask(0); /* the mode does not depend on it */
    assert_int_equal(curve_pair_write(&p, name, &e), 0);
    umask(before);
    assert_int_equal(scratch_count("node"), 2); /* no temporary is left */
    assert_int_equal(stat(scratch_path("node.secret"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(scratch_path("node.public"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);

    assert_int_equal(curve_pair_read(&q, scratch_path("node.secret"), &e), 0);
    assert_memory_equal(&q, &p, sizeof p);
    assert_int_equal(curve_public_read(key, scratch_path("node.public"), &e), 0);
    assert_string_equal(key, p.public_key);
    assert_int_equal(curve_public_read(key, p.public_key, &e), 0);
    assert_string_equal(key, p.public_key);

    assert_int_equal(curve_pair_write(&another, name, &e), ERR_SYSTEM); /* never over what is there */
    expect_message("again", "node.", "exists");
    unlink(scratch_path("node.secret"));
    assert_int_equal(curve_pair_write(&another, name, &e), ERR_SYSTEM); /* nor half of it */
    expect_message("again", "node.public", "exists");
    assert_int_equal(scratch_count("node.secret"), 0);
    assert_int_equal(symlink("nowhere", scratch_path("link.secret")), 0);
    snprintf(name, sizeof name, "%s", scratch_path("link"));
    assert_int_equal(curve_pair_write(&another, name, &e), ERR_SYSTEM);
    assert_int_equal(access(scratch_path("nowhere"), F_OK), -1);
    snprintf(name, sizeof name, "%s", scratch_path("no/such/folder"));
    assert_int_equal(curve_pair_write(&another, name, &e), ERR_SYSTEM);
    expect_message("no folder", "no/such/folder", "cannot create");
}

static void what_a_secret_file_may_hold(void **state)
{
    (void)state;
    struct curve_pair p;
    static const char *const good[] = {"secret " SECRET "\npublic " PUBLIC "\n", "secret " SECRET,
                                       "# mine\n\n  public\t" PUBLIC "  of a machine\r\n#\nsecret " SECRET "\r\n"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (curve_pair_read(&p, key_file("good.secret", 0600, good[i]), &e))
            fail_msg("%s", e.message);
        assert_string_equal(p.secret_key, SECRET);
        assert_string_equal(p.public_key, PUBLIC);
    }
    static const struct {
        const char *text, *a, *b;
    } bad[] = {
        {"", "bad.secret", "no line 'secret KEY'"},
        {"public " PUBLIC "\n", "bad.secret", "no line 'secret KEY'"},
        {"secret " PUBLIC "\npublic " OTHER "\n", "its public key does not belong to its secret key", "would"},
        {"secret " SECRET "\npublic " SECRET "\n", "does not belong to its secret key", PUBLIC},
        {"secret " SECRET "\nsecret " SECRET "\n", "line 2", "a second secret key"},
        {"\nsecret " SECRET "x\n", "line 2: a secret key of 41 characters", "must be 40"},
        {"secret\n", "a secret key of 0 characters", "must be 40"},
        {"secret JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh~\n", "line 1", "not all of Z85"},
        {"secret " SECRET "\npublic short\n", "line 2: a public key of 5 characters", "must be 40"},
        {"secret " SECRET "\nwhat is this\n", "line 2", "must be 40"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(curve_pair_read(&p, key_file("bad.secret", 0600, bad[i].text), &e), ERR_INPUT);
        expect_message(bad[i].text, bad[i].a, bad[i].b);
        assert_string_equal(p.secret_key, "");
    }
    assert_int_equal(curve_pair_read(&p, scratch_path("missing"), &e), ERR_SYSTEM);
    expect_message("missing", "missing", "cannot open");
    assert_int_equal(curve_pair_read(&p, scratch_folder, &e), ERR_INPUT);
}

static void a_secret_file_is_private(void **state)
{
    (void)state;
    struct curve_pair p;
    for (mode_t open = 1; open < 0100; open <<= 1) {
        char mode[8];
        snprintf(mode, sizeof mode, "%04o", 0600u | (unsigned)open);
        assert_int_equal(curve_pair_read(&p, key_file("s", 0600 | open, "secret " SECRET), &e), ERR_INPUT);
        expect_message(mode, mode, "must be 0600");
    }
    assert_int_equal(curve_pair_read(&p, key_file("s", 0400, "secret " SECRET), &e), 0);
}

static void what_a_public_key_may_be(void **state)
{
    (void)state;
    char key[CURVE_KEY_SIZE];
    static const char *const good[] = {"public " PUBLIC "\n", PUBLIC, "# it\n" PUBLIC " gpu-7\n"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(curve_public_read(key, key_file("good.public", 0644, good[i]), &e), 0);
        assert_string_equal(key, PUBLIC);
    }
    static const struct {
        const char *text, *a, *b;
    } bad[] = {
        {"public " PUBLIC "\npublic " OTHER "\n", "bad.public", "more than one"},
        {"secret " SECRET "\npublic " PUBLIC "\n", "line 1", "must be public ones only"},
        {"ssh-ed25519 AAAA\n", "a public key of 11 characters", "must be 40"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(curve_public_read(key, key_file("bad.public", 0644, bad[i].text), &e), ERR_INPUT);
        expect_message(bad[i].text, bad[i].a, bad[i].b);
    }
    assert_int_equal(curve_public_read(key, key_file("bad.public", 0644, "# nothing\n"), &e), ERR_ABSENT);
    expect_message("nothing", "bad.public", "no line 'public KEY'");
    assert_int_equal(curve_public_read(key, "neither a key nor a file", &e), ERR_SYSTEM);
    expect_message("neither", "neither a key nor a file", "cannot open");
}

/* ---- the allow-list ---- */

static void allow_file_and_folder(void **state)
{
    (void)state;
    struct allow_list a;
    const char *file = key_file("keys", 0644, "# two\n" PUBLIC " one\npublic " OTHER "\n");
    assert_int_equal(allow_list_init(&a, file, &e), 0);
    assert_true(allow_list_has(&a, PUBLIC) && allow_list_has(&a, OTHER));
    assert_false(allow_list_has(&a, SECRET) || allow_list_has(&a, ""));
    allow_list_release(&a);

    assert_int_equal(mkdir(scratch_path("allow"), 0755), 0);
    assert_int_equal(allow_list_init(&a, scratch_path("allow"), &e), ERR_INPUT);
    expect_message("empty", "allow", "without *.public files");
    key_file("allow/one.public", 0644, "public " PUBLIC "\n");
    key_file("allow/one.secret", 0600, "secret " SECRET "\n"); /* made there; not looked at */
    key_file("allow/.two.public.swp", 0600, "rubbish");
    assert_int_equal(allow_list_init(&a, scratch_path("allow"), &e), 0);
    assert_int_equal(a.n, 1);
    assert_true(allow_list_has(&a, PUBLIC));
    allow_list_release(&a);

    key_file("allow/bad.public", 0644, "");
    assert_int_equal(allow_list_init(&a, scratch_path("allow"), &e), ERR_ABSENT);
    expect_message("bad", "bad.public", "no line 'public KEY'");
    assert_int_equal(allow_list_init(&a, scratch_path("nothing-here"), &e), ERR_SYSTEM);
    expect_message("missing", "nothing-here", "cannot open");
    unlink(scratch_path("allow/bad.public"));
    unlink(scratch_path("allow/one.public"));
    unlink(scratch_path("allow/one.secret"));
    unlink(scratch_path("allow/.two.public.swp"));
    rmdir(scratch_path("allow"));
}

/* Looks again, and takes the list as it is now; returns whether it has changed. */
static bool look_again(struct allow_list *a)
{
    struct allow_list now;
    if (!allow_list_changed(a, &now, &e))
        return false;
    allow_list_release(a);
    *a = now;
    return true;
}

/* Checks who may stay, and whether somebody with the key PUBLIC may come. */
static void expect_list(struct allow_list *a, bool public_stays, bool other_stays, bool admits)
{
    assert_true(look_again(a));
    assert_false(look_again(a)); /* and it is told once */
    assert_int_equal(allow_list_has(a, PUBLIC), public_stays);
    assert_int_equal(allow_list_has(a, OTHER), other_stays);
    assert_int_equal(allow_list_refusal(a, PUBLIC) == NULL, admits);
    assert_int_equal(a->readable, e.code == 0);
}

static void revocation_fails_closed(void **state)
{
    (void)state;
    struct allow_list a;
    assert_int_equal(mkdir(scratch_path("allow"), 0755), 0);
    key_file("allow/one.public", 0644, "public " PUBLIC "\n");
    assert_int_equal(allow_list_init(&a, scratch_path("allow"), &e), 0);
    assert_false(look_again(&a));
    key_file("allow/two.public", 0644, "public " OTHER "\n");
    expect_list(&a, true, true, true);

    key_file("allow/two.public", 0644, "public no\n"); /* malformed: who is here stays, nobody comes */
    expect_list(&a, true, true, false);
    expect_message("malformed", "two.public: line 1", "must be 40");
    assert_string_equal(allow_list_refusal(&a, PUBLIC), "the list of allowed keys cannot be read");
    unlink(scratch_path("allow/one.public")); /* but who is taken off meanwhile goes */
    expect_list(&a, false, true, false);
    key_file("allow/two.public", 0644, "# none any more\n");
    expect_list(&a, false, false, false);
    key_file("allow/one.public", 0644, "public " PUBLIC "\n");
    unlink(scratch_path("allow/two.public"));
    expect_list(&a, true, false, true);

    unlink(scratch_path("allow/one.public")); /* the last one */
    expect_list(&a, false, false, false);
    assert_true(a.readable);
    assert_string_equal(allow_list_refusal(&a, PUBLIC), "its key is not allowed");
    key_file("allow/one.public", 0644, "public " PUBLIC "\n");
    expect_list(&a, true, false, true);
    unlink(scratch_path("allow/one.public"));
    rmdir(scratch_path("allow")); /* all of them */
    expect_list(&a, false, false, false);
    expect_message("gone", "allow", "cannot open");
    allow_list_release(&a);

    const char *file = key_file("keys", 0644, PUBLIC "\n" OTHER "\n");
    assert_int_equal(allow_list_init(&a, file, &e), 0);
    key_file("keys", 0644, PUBLIC "\n");
    expect_list(&a, true, false, true);
    key_file("keys", 0644, PUBLIC "\n" OTHER "x\n"); /* what can be read of a malformed file does not count */
    expect_list(&a, true, false, false);
    key_file("keys", 0644, "");
    expect_list(&a, false, false, false);
    key_file("keys", 0644, PUBLIC "\n");
    expect_list(&a, true, false, true);
    unlink(file);
    expect_list(&a, false, false, false);
    allow_list_release(&a);
}

/* ---- ZAP ---- */

static void zap_decisions(void **state)
{
    (void)state;
    struct allow_list a;
    assert_int_equal(allow_list_init(&a, key_file("keys", 0644, PUBLIC "\n"), &e), 0);
    const struct zap_request good = {.version = "1.0", .domain = ZAP_DOMAIN, .mechanism = "CURVE", .key = PUBLIC};
    assert_null(zap_refusal(&good, &a));
    struct zap_request r = good;
    strcpy(r.key, OTHER);
    assert_string_equal(zap_refusal(&r, &a), "its key is not allowed");
    r = good;
    strcpy(r.mechanism, "NULL");
    assert_non_null(zap_refusal(&r, &a));
    strcpy(r.mechanism, "PLAIN");
    assert_non_null(zap_refusal(&r, &a));
    r = good;
    r.key[0] = '\0';
    assert_string_equal(zap_refusal(&r, &a), "no key");
    r = good;
    r.domain[0] = '\0';
    assert_non_null(zap_refusal(&r, &a));
    r = good;
    strcpy(r.version, "2.0");
    assert_non_null(zap_refusal(&r, &a));
    allow_list_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_written_and_read),
        cmocka_unit_test(what_a_secret_file_may_hold),
        cmocka_unit_test(a_secret_file_is_private),
        cmocka_unit_test(what_a_public_key_may_be),

        cmocka_unit_test(allow_file_and_folder),
        cmocka_unit_test(revocation_fails_closed),
        cmocka_unit_test(zap_decisions),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
