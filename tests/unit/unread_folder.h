/* A folder that cannot be read to its end. */
#ifndef SLUICE_TESTS_UNIT_UNREAD_FOLDER_H
#define SLUICE_TESTS_UNIT_UNREAD_FOLDER_H

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>

static int unread; /* what each readdir says; 0: as it is */

struct dirent *readdir(DIR *d)
{
    struct dirent *(*real)(DIR *);

    if (unread) {
        errno = unread;
        return NULL;
    }
    *(void **)&real = dlsym(RTLD_NEXT, "readdir");
    return real(d);
}

#endif
