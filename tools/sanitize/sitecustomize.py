"""What `./dev.sh sanitize` starts every Python with: the sanitizer's runtime, for Python alone.

The runtime has to be loaded before the interpreter, by LD_PRELOAD. A tool that a test starts
(ping, tshark) must not inherit it: tshark never ends with it. So a Python that has the runtime
takes the variable out of its environment, and one that was started without it starts again.
"""

import os
import sys
import threading

if "LD_PRELOAD" in os.environ:
    del os.environ["LD_PRELOAD"]
    # ThreadSanitizer starts a thread of its own beside the first; no test is to be blamed for it.
    first = threading.Thread(target=int)
    first.start()
    first.join()
else:
    again = {**os.environ, "LD_PRELOAD": os.environ["NETSTACK_SANITIZER_RUNTIME"]}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], again)
