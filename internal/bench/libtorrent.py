# One libtorrent client on a bed; called by package bench, see peers.go.
import sys
import time

import libtorrent as lt

verb, torrent, directory, listen = sys.argv[1:5]
session = lt.session({
    "listen_interfaces": listen,
    "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification,
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    # TCP in the clear, as all the others here.
    "enable_outgoing_utp": False, "enable_incoming_utp": False,
    "in_enc_policy": 2, "out_enc_policy": 2,
    # A LAN: nothing that libtorrent limits to be polite on the internet.
    "connections_limit": 1000, "unchoke_slots_limit": 100, "connection_speed": 100,
    "max_out_request_queue": 1500, "send_buffer_watermark": 4 << 20,
    "allow_multiple_connections_per_ip": True, "ignore_limits_on_local_network": True,
})
p = lt.add_torrent_params()
p.ti = lt.torrent_info(torrent)
p.save_path = directory
if verb == "seed":
    p.flags |= lt.torrent_flags.seed_mode
p.flags &= ~lt.torrent_flags.auto_managed
p.flags &= ~lt.torrent_flags.paused
print("ready", flush=True)
if not sys.stdin.readline():
    sys.exit()
handle = session.add_torrent(p)
for peer in sys.argv[5:]:
    host, port = peer.rsplit(":", 1)
    handle.connect_peer((host, int(port)))

done = False
told = time.monotonic()
while verb == "fetch" and not done:
    session.wait_for_alert(500)
    for alert in session.pop_alerts():
        if isinstance(alert, lt.torrent_finished_alert):
            done = True
        elif isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert, lt.listen_failed_alert)):
            sys.exit(str(alert))
    if time.monotonic() - told > 0.5:
        told = time.monotonic()
        print("have", handle.status().total_wanted_done, flush=True)
if done:
    print("done", flush=True)
sys.stdin.read()  # go on seeding until told to end
