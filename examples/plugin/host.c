/* A host application in C: loads a plugin, gives it a function, calls it, and survives what it does. */
#include <dhow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The plugin's acme:filter/log#write: gets ["text"]. */
static int write_log(void *data, const char *arguments, dhow_buffer *answer) {
    (void)answer;
    ++*(int *)data;
    printf("the plugin says %s\n", arguments);
    return 0;
}

static int released;
static void release(void *data) { (void)data; ++released; }

/* Tells what failed, and frees it. */
static dhow_kind told(dhow_error *error) {
    dhow_kind kind = dhow_error_kind(error);
    dhow_buffer message = dhow_error_message(error), details = dhow_error_details(error);
    printf("failed (%d): %s %s\n", kind, (char *)message.data, (char *)details.data);
    dhow_buffer_free(&message);
    dhow_buffer_free(&details);
    dhow_error_free(error);
    return kind;
}

static void need(bool good, dhow_error *error) {
    if (good) return;
    if (error) told(error);
    exit(1);
}

int main(int argc, char **argv) {
    (void)argc;
    int calls = 0;
    bool good;
    dhow_error *error = NULL;
    dhow_host *host = dhow_host_new(NULL, &error);
    need(host, error);
    dhow_loader *loader = dhow_loader_file(host, argv[1], &error);
    need(loader, error);
    good = dhow_loader_set(loader, "{\"name\": \"filter\", \"limits\": {\"deadline\": \"2s\"}}", &error);
    need(good, error);
    good = dhow_loader_function(loader, "acme:filter/log", "write", write_log, &calls, release, &error);
    need(good, error);
    dhow_plugin *plugin = dhow_loader_load(loader, &error);
    dhow_loader_free(loader);
    need(plugin, error);

    /* Values by the plugin's own types, as JSON. */
    dhow_buffer answer = {0};
    good = dhow_plugin_call(plugin, "greet", "[{\"name\": \"Ada\", \"age\": 36}]", NULL, &answer, &error);
    need(good, error);
    printf("it answers %s\n", (char *)answer.data);
    dhow_buffer_free(&answer);

    /* Its own errors, wrong arguments, a crash, a loop: each is told apart, and the next call is served. */
    good = dhow_plugin_call(plugin, "greet", "[{\"name\": \"\"}]", NULL, &answer, &error);
    need(!good && told(error) == DHOW_KIND_GUEST, NULL);
    good = dhow_plugin_call(plugin, "greet", "[{\"name\": 1}]", NULL, &answer, &error);
    need(!good && told(error) == DHOW_KIND_INCOMPATIBLE, NULL);
    good = dhow_plugin_call(plugin, "crash", NULL, NULL, &answer, &error);
    need(!good && told(error) == DHOW_KIND_TRAP, NULL);
    dhow_call_options options = {.deadline = 20 * 1000 * 1000};
    good = dhow_plugin_call(plugin, "spin", NULL, &options, &answer, &error);
    need(!good && told(error) == DHOW_KIND_DEADLINE, NULL);
    good = dhow_plugin_call(NULL, "spin", NULL, &options, &answer, &error);
    need(!good && told(error) == DHOW_KIND_USAGE, NULL);

    /* Bytes as they are. */
    dhow_bytes_function *reverse = dhow_plugin_bytes(plugin, "reverse", &error);
    need(reverse, error);
    for (int turn = 0; turn < 1000; ++turn) {
        good = dhow_bytes_call(reverse, (const uint8_t *)"stressed", 8, NULL, &answer, &error);
        need(good && answer.length == 8 && !memcmp(answer.data, "desserts", 8), error);
        dhow_buffer_free(&answer);
    }
    dhow_bytes_free(reverse);

    dhow_buffer stats = dhow_plugin_stats(plugin);
    need(strstr((char *)stats.data, "\"traps\":1") && strstr((char *)stats.data, "\"deadlines\":1"), NULL);
    dhow_buffer_free(&stats);
    need(calls == 2 && released == 0, NULL);
    dhow_plugin_free(plugin);
    dhow_host_free(host);
    printf("log called %d times, released %d time\n", calls, released);
    return 0;
}
