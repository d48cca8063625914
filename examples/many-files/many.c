// Writes a thousand small files in ten folders, renames some, removes others, and says what is left.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void check(int result, const char *what) {
    if (result == 0) return;
    perror(what);
    exit(1);
}

int main(void) {
    char path[64], other[64];
    check(mkdir("/data", 0755), "/data");
    for (int n = 0; n < 1000; n++) {
        snprintf(path, sizeof path, "/data/%d", n % 10);
        if (n < 10) check(mkdir(path, 0755), path);
        snprintf(path, sizeof path, "/data/%d/%d.txt", n % 10, n);
        FILE *file = fopen(path, "w");
        if (!file || fprintf(file, "%d\n", n) < 0 || fclose(file)) check(-1, path);
    }
    for (int n = 0; n < 1000; n += 10) {
        snprintf(path, sizeof path, "/data/0/%d.txt", n);
        snprintf(other, sizeof other, "/data/1/was-%d.txt", n);
        if (n % 20) check(unlink(path), path);
        else check(rename(path, other), path);
    }
    int left = 0;
    for (int folder = 0; folder < 10; folder++) {
        snprintf(path, sizeof path, "/data/%d", folder);
        DIR *dir = opendir(path);
        if (!dir) check(-1, path);
        for (struct dirent *entry; (entry = readdir(dir));) left += entry->d_name[0] != '.';
        closedir(dir);
    }
    printf("%d files\n", left);
}
