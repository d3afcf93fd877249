"""Creates a container: argv is the endpoint with the account, and the container's name; the key is in ACCOUNT_KEY."""
import base64
import email.utils
import hashlib
import hmac
import os
import sys
import urllib.request

endpoint, container = sys.argv[1:]
account = endpoint.rsplit("/", 1)[1]
headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
canonical = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
# Method, eleven empty standard headers; the account stands twice, as it is in the emulator's path too.
to_sign = f"PUT{chr(10) * 12}{canonical}/{account}/{account}/{container}\nrestype:container"
digest = hmac.new(base64.b64decode(os.environ["ACCOUNT_KEY"]), to_sign.encode(), hashlib.sha256).digest()
headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(digest).decode()}"
request = urllib.request.Request(f"{endpoint}/{container}?restype=container", method="PUT", headers=headers)
urllib.request.urlopen(request, timeout=30)
