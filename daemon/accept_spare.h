/* Connections that come when no more files may be open. libzmq ends the program then (ipc), or
 * asks again without a pause (tcp). */
#ifndef SLUICE_DAEMON_ACCEPT_SPARE_H
#define SLUICE_DAEMON_ACCEPT_SPARE_H

/* Effect: keeps a file open for this process's life. accept4, as libraries call it too, takes a connection
 * that has no room with that one's number, closes it, and says ECONNABORTED; the peer comes again later. */
void sl_accept_spare(void);

#endif
