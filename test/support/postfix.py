"""A private Postfix (Debian's) in a folder of its own, on IPv4 loopback: nothing of the machine's configuration is read.

Whoever needs one, as a receiver or as a contender, adds its own settings and services and starts it; that takes root.
"""

import os
import pwd

DAEMONS = "/usr/lib/postfix/sbin"

SETTINGS = {
    "compatibility_level": "3.6",
    "daemon_directory": DAEMONS,
    "setgid_group": "postdrop",
    "mail_owner": "postfix",
    "inet_interfaces": "127.0.0.1",
    "inet_protocols": "ipv4",
    "mydestination": "",
    "alias_maps": "",
    "alias_database": "",
    "smtpd_peername_lookup": "no",
}

SERVICES = """\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


def lay_out(folder, settings, services):
    """Folders and configuration below `folder`, which exists. `settings` and `services` (lines of master.cf, the smtpd
    among them) come on top of those that each has; it is started with `-c FOLDER/etc`."""
    for name in ("etc", "queue", "data"):
        os.mkdir(f"{folder}/{name}", 0o755)
    os.chown(f"{folder}/data", pwd.getpwnam("postfix").pw_uid, -1)
    places = {"queue_directory": f"{folder}/queue", "data_directory": f"{folder}/data"}
    with open(f"{folder}/etc/main.cf", "w") as f:
        f.writelines(f"{name} = {value}\n" for name, value in {**SETTINGS, **places, **settings}.items())
    with open(f"{folder}/etc/master.cf", "w") as f:
        f.write(SERVICES + services)
