/* Preloaded into a real program: a kernel with pages of 64 KiB, as some of arm64 have. */
#include <dlfcn.h>
#include <unistd.h>

long sysconf(int name);
long sysconf(int name)
{
    long (*real)(int);

    if (name == _SC_PAGESIZE)
        return 65536;
    *(void **)&real = dlsym(RTLD_NEXT, "sysconf");
    return real(name);
}
