/* Stopping at a safe point: the first SIGINT, SIGTERM, SIGHUP or SIGUSR1 asks,
 * the second SIGINT or SIGTERM ends the process at once (130, 143). A SIGHUP that nohup(1) has
 * ignored stays ignored. */
#ifndef SLUICE_CLIENT_INTERRUPT_H
#define SLUICE_CLIENT_INTERRUPT_H

#include <stdbool.h>

/* Effect: installs the handlers and ignores SIGPIPE. */
void interrupt_install(void);

/* Returns whether a stop was asked for. */
bool interrupt_asked(void);

#endif
