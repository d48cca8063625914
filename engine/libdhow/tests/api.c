/* Everything that a host in C can do with plugins: api GUEST OUTPUT-GUEST. It says nothing where all is well. */
#define _DEFAULT_SOURCE
#include <dhow.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(what) ((what) ? (void)0 : fail(__LINE__, #what))

static void fail(int line, const char *what) {
    fprintf(stderr, "api.c:%d: %s\n", line, what);
    exit(1);
}

/* The kind of a failure whose details or message have `text`, which is freed. */
static dhow_kind kind(dhow_error **error, const char *text) {
    dhow_kind found = dhow_error_kind(*error);
    dhow_buffer message = dhow_error_message(*error), details = dhow_error_details(*error);
    if (text && !strstr((char *)message.data, text) && !strstr((char *)details.data, text)) {
        fprintf(stderr, "no %s in (%d) %s %s\n", text, found, (char *)message.data, (char *)details.data);
        exit(1);
    }
    dhow_buffer_free(&message);
    dhow_buffer_free(&details);
    dhow_error_free(*error);
    *error = NULL;
    return found;
}

static atomic_int released;
static void release(void *data) { (void)data; ++released; }

static int ask(void *data, const char *arguments, dhow_buffer *answer) {
    (void)data;
    int n = atoi(arguments + 1);
    const char *text = n == 0 ? "not zero" : n == 1 ? "no JSON" : "8";
    dhow_buffer_set(answer, (const uint8_t *)text, strlen(text));
    return n == 0;
}

/* Answers from another thread, somewhat later; 9 never. */
static dhow_reply_handle *_Atomic kept;
static void *answer_later(void *reply) {
    usleep(2000);
    dhow_reply(reply, false, (const uint8_t *)"7", 1);
    return NULL;
}
static void slow(void *data, const char *arguments, dhow_reply_handle *reply) {
    (void)data;
    pthread_t thread;
    if (!strcmp(arguments, "[0]")) {
        dhow_reply(reply, true, (const uint8_t *)"not zero", 8);
    } else if (!strcmp(arguments, "[9]")) {
        kept = reply;
    } else {
        CHECK(pthread_create(&thread, NULL, answer_later, reply) == 0);
        pthread_detach(thread);
    }
}

static dhow_plugin *load(dhow_host *host, const char *path, const char *settings, dhow_error **error) {
    dhow_loader *loader = dhow_loader_file(host, path, error);
    CHECK(loader);
    dhow_plugin *plugin = NULL;
    if (dhow_loader_set(loader, settings, error) &&
        dhow_loader_function(loader, NULL, "ask", ask, NULL, release, error) &&
        dhow_loader_function_async(loader, "acme:host/slow", "wait", slow, NULL, release, error))
        plugin = dhow_loader_load(loader, error);
    dhow_loader_free(loader);
    return plugin;
}

/* Whether a call answers with `wanted`. */
static bool says(dhow_plugin *plugin, const char *name, const char *arguments, const char *wanted) {
    dhow_buffer answer = {0};
    dhow_error *error = NULL;
    bool good = dhow_plugin_call(plugin, name, arguments, NULL, &answer, &error);
    if (!good) {
        kind(&error, "");
        return false;
    }
    bool same = !strcmp((char *)answer.data, wanted);
    dhow_buffer_free(&answer);
    return same;
}

/* How a call fails. */
static dhow_kind fails(dhow_plugin *plugin, const char *name, const char *arguments, const dhow_call_options *options,
                       const char *text) {
    dhow_buffer answer = {0};
    dhow_error *error = NULL;
    if (dhow_plugin_call(plugin, name, arguments, options, &answer, &error)) {
        dhow_buffer_free(&answer);
        return DHOW_KIND_NONE;
    }
    return kind(&error, text);
}

static atomic_int ended;
static char told[100];
static int told_kind;
static void done(void *data, dhow_buffer answer, dhow_error *error) {
    CHECK(data == told);
    told_kind = (int)dhow_error_kind(error);
    if (!error) snprintf(told, sizeof told, "%s", (char *)answer.data);
    dhow_buffer_free(&answer);
    dhow_error_free(error);
    ++ended;
}

static void await(int wanted) {
    for (int turn = 0; ended < wanted && turn < 20000; ++turn) usleep(1000);
    CHECK(ended == wanted);
}

static void *cancel_later(void *cancel) {
    usleep(20000);
    dhow_cancel(cancel);
    return NULL;
}

static char output[100];
static void sink(void *data, const uint8_t *bytes, size_t length) {
    (void)data;
    strncat(output, (const char *)bytes, length < 50 ? length : 50);
}

static atomic_int spans;
static void trace(void *data, const char *span) {
    (void)data;
    if (strstr(span, "\"span\":\"plugin.call\"") && strstr(span, "\"nanoseconds\":")) ++spans;
}

/* Counts one up; the other calls for `count`'s answer in its place. */
static const char *OTHER =
    "(component (core module $m (func (export \"count\") (result i32) (i32.const 99)))"
    " (core instance $i (instantiate $m))"
    " (func (export \"count\") (result u32) (canon lift (core func $i \"count\"))))";

int main(int argc, char **argv) {
    CHECK(argc == 3);
    dhow_error *error = NULL;
    CHECK(dhow_version()[0] != 0);
    CHECK(dhow_trace(trace, NULL, &error));
    CHECK(!dhow_trace(trace, NULL, &error) && kind(&error, "already") == DHOW_KIND_USAGE);

    /* Settings that are none. */
    CHECK(!dhow_host_new("{\"colour\": 1}", &error) && kind(&error, "colour") == DHOW_KIND_USAGE);
    dhow_host *host = dhow_host_new(NULL, &error);
    CHECK(host);
    CHECK(!dhow_loader_image(host, "acme/none:1", &error) && kind(&error, "no store") == DHOW_KIND_USAGE);
    CHECK(!load(host, "/nowhere.wasm", "{}", &error) && kind(&error, "nowhere") == DHOW_KIND_LOAD);
    CHECK(!load(host, argv[1], "{\"grants\": {\"network\": [\"a b\"]}}", &error) && kind(&error, "a b") == DHOW_KIND_USAGE);
    dhow_loader *loader = dhow_loader_bytes(host, (const uint8_t *)"nothing", 7, &error);
    CHECK(loader && !dhow_loader_load(loader, &error) && kind(&error, NULL) == DHOW_KIND_LOAD);
    CHECK(!dhow_loader_load(loader, &error) && kind(&error, "used before") == DHOW_KIND_USAGE);
    dhow_loader_free(loader);
    loader = dhow_loader_file(host, argv[1], &error);
    CHECK(!dhow_loader_load(loader, &error) && kind(&error, "ask") == DHOW_KIND_INCOMPATIBLE);
    dhow_loader_free(loader);

    /* Nothing granted; nothing asked for; a ceiling. */
    dhow_plugin *plugin = load(host, argv[1], "{}", &error);
    CHECK(plugin);
    CHECK(fails(plugin, "roll", NULL, NULL, "wasi:random/random") == DHOW_KIND_DENIED);
    CHECK(fails(plugin, "remember", "[1]", NULL, "dhow:plugin/kv") == DHOW_KIND_DENIED);
    CHECK(dhow_kv_get(plugin, "key", NULL, &error) == -1 && kind(&error, "kv") == DHOW_KIND_USAGE);
    dhow_plugin_free(plugin);
    CHECK(released == 4); /* Of two: the settings of one more were refused before it had any. */
    plugin = load(host, argv[1], "{\"grants\": {\"random\": true}, \"requested\": {}}", &error);
    CHECK(plugin && fails(plugin, "roll", NULL, NULL, NULL) == DHOW_KIND_DENIED);
    dhow_plugin_free(plugin);
    dhow_host *strict = dhow_host_new("{\"ceiling\": {}, \"instances\": 4}", &error);
    plugin = load(strict, argv[1], "{\"grants\": {\"random\": true}}", &error);
    CHECK(plugin && fails(plugin, "roll", NULL, NULL, NULL) == DHOW_KIND_DENIED);
    dhow_plugin_free(plugin);
    dhow_host_free(strict);

    /* Limits of the plugin, each with its own failure, and those of one call. */
    plugin = load(host, argv[1],
                  "{\"name\": \"limited\", \"grants\": {\"random\": true, \"kv\": 500}, \"pool\": {\"size\": 1},"
                  " \"limits\": {\"memory\": 131072, \"deadline\": \"50ms\", \"fuel\": 100000000, \"output\": 1000}}",
                  &error);
    CHECK(plugin);
    CHECK(!says(plugin, "roll", NULL, ""));
    CHECK(fails(plugin, "grow", NULL, NULL, "131072") == DHOW_KIND_OUT_OF_MEMORY);
    dhow_kind spun = fails(plugin, "spin", NULL, NULL, NULL);
    CHECK(spun == DHOW_KIND_DEADLINE || spun == DHOW_KIND_OUT_OF_FUEL);
    CHECK(fails(plugin, "spin", NULL, &(dhow_call_options){.fuel = 1000}, "1000") == DHOW_KIND_OUT_OF_FUEL);
    dhow_call_options soon = {.deadline = 10 * 1000 * 1000, .fuel = 1000000000000};
    CHECK(fails(plugin, "spin", NULL, &soon, "10ms") == DHOW_KIND_DEADLINE);
    CHECK(fails(plugin, "count", NULL, &(dhow_call_options){.memory = 10}, NULL) == DHOW_KIND_OUT_OF_MEMORY);
    CHECK(fails(plugin, "trap", NULL, NULL, "deep") == DHOW_KIND_TRAP);
    CHECK(fails(plugin, "check", "[false]", NULL, "7") == DHOW_KIND_GUEST);
    CHECK(says(plugin, "check", "[true]", "null"));
    CHECK(fails(plugin, "check", "[1]", NULL, "expected bool") == DHOW_KIND_INCOMPATIBLE);
    CHECK(fails(plugin, "none", NULL, NULL, "count") == DHOW_KIND_NO_FUNCTION);
    dhow_bytes_function *echo = dhow_plugin_bytes(plugin, "echo", &error);
    CHECK(echo);
    CHECK(!dhow_plugin_bytes(plugin, "count", &error) && kind(&error, NULL) == DHOW_KIND_INCOMPATIBLE);
    uint8_t bytes[2000] = {0};
    dhow_buffer answer = {0};
    CHECK(dhow_bytes_call(echo, bytes, 900, NULL, &answer, &error) && answer.length == 900);
    dhow_buffer_free(&answer);
    CHECK(!dhow_bytes_call(echo, bytes, 2000, NULL, &answer, &error) && kind(&error, NULL) == DHOW_KIND_TRAP);
    CHECK(dhow_bytes_call(echo, bytes, 2000, &(dhow_call_options){.output = 5000}, &answer, &error));
    dhow_buffer_free(&answer);
    dhow_bytes_free(echo);

    /* What it remembers. */
    CHECK(says(plugin, "remember", "[5]", "true") && says(plugin, "remember", "[700]", "false"));
    CHECK(dhow_kv_get(plugin, "key", &answer, &error) == 1 && answer.length == 5);
    dhow_buffer_free(&answer);
    CHECK(dhow_kv_set(plugin, "mine", bytes, 10, &error) == 1 && dhow_kv_set(plugin, "mine", bytes, 2000, &error) == 0);
    CHECK(dhow_kv_delete(plugin, "mine", &error) == 1 && dhow_kv_delete(plugin, "mine", &error) == 0);
    CHECK(dhow_kv_get(plugin, "mine", &answer, &error) == 0);

    /* Functions of the host: at once and later. */
    CHECK(says(plugin, "ask", "[2]", "8"));
    CHECK(fails(plugin, "ask", "[0]", NULL, "not zero") == DHOW_KIND_HOST);
    CHECK(fails(plugin, "ask", "[1]", NULL, "no JSON") == DHOW_KIND_HOST);
    CHECK(says(plugin, "wait", "[1]", "7"));
    CHECK(fails(plugin, "wait", "[0]", NULL, "not zero") == DHOW_KIND_HOST);
    CHECK(fails(plugin, "wait", "[9]", NULL, NULL) == DHOW_KIND_DEADLINE);
    dhow_reply(kept, false, (const uint8_t *)"1", 1); /* Nobody waits any more. */

    /* Calls that nobody waits for. */
    CHECK(dhow_plugin_call_async(plugin, "wait", "[1]", NULL, done, told, &error));
    await(1);
    CHECK(told_kind == DHOW_KIND_NONE && !strcmp(told, "7"));
    CHECK(dhow_plugin_call_async(plugin, "wait", "[9]", &(dhow_call_options){.deadline = 1000000}, done, told, &error));
    await(2);
    CHECK(told_kind == DHOW_KIND_DEADLINE);
    dhow_reply(kept, false, NULL, 0);
    CHECK(!dhow_plugin_call_async(plugin, "count", NULL, NULL, NULL, NULL, &error) && kind(&error, "done") == DHOW_KIND_USAGE);

    /* Giving up, from another thread, a call that computes and one that waits. */
    dhow_cancel_handle *cancel = dhow_cancel_new();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, cancel_later, cancel) == 0);
    dhow_call_options given_up = {.deadline = 20000000000, .fuel = 1000000000000000, .cancel = cancel};
    CHECK(fails(plugin, "spin", NULL, &given_up, NULL) == DHOW_KIND_CANCELLED);
    pthread_join(thread, NULL);
    CHECK(dhow_plugin_call_async(plugin, "wait", "[9]", &given_up, done, told, &error));
    dhow_cancel_free(cancel);
    await(3);
    CHECK(told_kind == DHOW_KIND_CANCELLED);

    /* What has happened. */
    dhow_buffer stats = dhow_plugin_stats(plugin);
    CHECK(strstr((char *)stats.data, "\"traps\":2,") && strstr((char *)stats.data, "\"cancelled\":2,"));
    CHECK(strstr((char *)stats.data, "\"largest\":65536,") && strstr((char *)stats.data, "\"p99\":"));
    dhow_buffer_free(&stats);
    dhow_plugin_free(plugin);

    /* Instances: fresh, warm; as many as there can be; other code; rest. */
    plugin = load(host, argv[1], "{}", &error);
    CHECK(says(plugin, "count", NULL, "1") && says(plugin, "count", "[]", "1"));
    dhow_plugin_free(plugin);
    plugin = load(host, argv[1], "{\"pool\": {\"size\": 1, \"calls\": 2}, \"rest_after_failure\": {\"first\": 60, \"most\": 60}}", &error);
    CHECK(says(plugin, "count", NULL, "1") && says(plugin, "count", NULL, "2") && says(plugin, "count", NULL, "1"));
    CHECK(!dhow_plugin_reload_bytes(plugin, bytes, 10, &error) && kind(&error, NULL) == DHOW_KIND_LOAD);
    CHECK(fails(plugin, "trap", NULL, NULL, NULL) == DHOW_KIND_TRAP);
    CHECK(fails(plugin, "count", NULL, NULL, "milliseconds") == DHOW_KIND_RESTING);
    CHECK(dhow_plugin_reload_bytes(plugin, (const uint8_t *)OTHER, strlen(OTHER), &error));
    CHECK(says(plugin, "count", NULL, "99"));
    CHECK(dhow_plugin_reload_file(plugin, argv[1], &error) && says(plugin, "count", NULL, "1"));
    CHECK(!dhow_plugin_refresh(plugin, NULL, &error) && kind(&error, "no image") == DHOW_KIND_USAGE);
    dhow_buffer functions = dhow_plugin_functions(plugin);
    CHECK(strstr((char *)functions.data, "func(bool) -> result<_, u32>"));
    dhow_buffer_free(&functions);
    dhow_plugin_free(plugin);
    dhow_host *small = dhow_host_new("{\"instances\": 1}", &error);
    plugin = load(small, argv[1], "{}", &error);
    kept = NULL;
    CHECK(dhow_plugin_call_async(plugin, "wait", "[9]", &(dhow_call_options){.deadline = 200000000}, done, told, &error));
    while (!kept) usleep(1000);
    CHECK(fails(plugin, "count", NULL, NULL, NULL) == DHOW_KIND_BUSY);
    await(4);
    dhow_plugin_free(plugin);
    dhow_host_free(small);

    /* Output goes where it is said, if it is granted. */
    for (int granted = 0; granted < 2; ++granted) {
        loader = dhow_loader_file(host, argv[2], &error);
        CHECK(dhow_loader_set(loader, granted ? "{\"grants\": {\"output\": true}}" : "{}", &error));
        CHECK(dhow_loader_output(loader, sink, NULL, release, &error));
        plugin = dhow_loader_load(loader, &error);
        dhow_loader_free(loader);
        CHECK(plugin && says(plugin, "run", NULL, "null"));
        CHECK(!strcmp(output, granted ? "hello from a component\n" : ""));
        dhow_plugin_free(plugin);
    }
    CHECK(!dhow_plugin_connect(host, "none", &error) && kind(&error, "no store") == DHOW_KIND_USAGE);
    dhow_host_free(host);
    CHECK(spans > 40);
    return 0;
}
