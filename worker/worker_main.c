#include <stdio.h>

int main(void)
{
    puts("sluice-worker " SLUICE_VERSION);
    return 0;
}
