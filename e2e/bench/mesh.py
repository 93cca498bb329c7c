#!/usr/bin/env python3
"""Side-by-side bench of service-mesh data planes.
  mesh.py bench  --peers plain,tcp2,ztunnel,envoy --reps 3 [--measures lat1,lat64,rps,bulk1,bulk8,conn,idle,hold] [--out f.jsonl]
  mesh.py memory --peers ztunnel,envoy --nwl 0,1000,10000 [--reps 1]
  mesh.py start  --peers ztunnel,envoy --reps 5
  mesh.py verify --peers ztunnel,envoy      (is the traffic encrypted on the wire?)
  mesh.py table  f.jsonl...
A peer is an executable peers/NAME: see README. All peers stay up during `bench`; measures are interleaved in random order."""
import argparse, ctypes, json, os, random, re, signal, socket, statistics, subprocess, sys, threading, time
H = os.path.dirname(os.path.abspath(__file__)); ROOT = os.environ.get('BENCH_RUN', H + '/run')
KIT = os.environ.get('KIT', H + '/kit/target/release/kit')
TCK = os.sysconf('SC_CLK_TCK'); libc = ctypes.CDLL(None, use_errno=True)
def sh(*a, **k): return subprocess.run(a, check=True, capture_output=True, text=True, **k).stdout

def family(pid):
    """a process and what descends from it: a node proxy is a supervisor and its workers"""
    try: children = [int(c) for t in os.listdir(f'/proc/{pid}/task') for c in open(f'/proc/{pid}/task/{t}/children').read().split()]
    except FileNotFoundError: return [pid]
    return [pid] + [d for c in children for d in family(c)]

class Peer:
    def __init__(s, name, idx, nwl=0, env=None):
        s.name, s.idx = name, idx; s.env = env or {}; s.nwl = nwl
        s.c, s.s = f'pm{idx}c', f'pm{idx}s'; s.cip, s.sip = f'10.77.{idx}.1', f'10.77.{idx}.2'
        s.run = f'{ROOT}/{idx}-{name}'; s.app = []
    def netns(s):
        for n in (s.c, s.s):
            sh('ip', 'netns', 'add', n); sh('ip', '-n', n, 'link', 'set', 'lo', 'up')
        sh('ip', 'link', 'add', 'eth0', 'netns', s.c, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', s.s)
        for n, ip in ((s.c, s.cip), (s.s, s.sip)):
            sh('ip', '-n', n, 'addr', 'add', ip + '/24', 'dev', 'eth0'); sh('ip', '-n', n, 'link', 'set', 'eth0', 'up')
            for k in ('net.ipv4.ip_local_port_range=10240 65000', 'net.ipv4.tcp_tw_reuse=1', 'net.core.somaxconn=8192', 'net.ipv4.tcp_max_syn_backlog=8192', 'net.ipv4.ip_unprivileged_port_start=0'):
                subprocess.run(['ip', 'netns', 'exec', n, 'sysctl', '-qw', k])
    def start(s):
        os.makedirs(s.run, exist_ok=True)
        sh('find', s.run, '-mindepth', '1', '-delete')
        os.chmod(s.run, 0o777); s.netns()
        q = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        s.app = [subprocess.Popen(['ip', 'netns', 'exec', s.s, KIT, 'serve', '0.0.0.0:8080', '1024'], **q),
                 subprocess.Popen(['ip', 'netns', 'exec', s.s, 'iperf3', '-s', '-p', '5201'], **q)]
        time.sleep(0.2)
        env = dict(os.environ, CNS=s.c, SNS=s.s, CIP=s.cip, SIP=s.sip, RUN=s.run, NWL=str(s.nwl), H=H, **s.env)
        r = subprocess.run([f'{H}/peers/{s.name}'], env=env, capture_output=True, text=True)
        if r.returncode: raise SystemExit(f'{s.name}: start hook failed: {r.stdout}{r.stderr}')
    def ready(s, limit=60):
        """seconds from the hook's first proxy exec (t0) to the first 200 through the mesh"""
        res = {}
        def go():
            fd = os.open('/var/run/netns/' + s.c, os.O_RDONLY); libc.setns(fd, 0); os.close(fd)
            end = time.time() + limit
            while time.time() < end:
                try:
                    k = socket.create_connection((s.sip, 8080), timeout=2); k.sendall(b'GET / HTTP/1.1\r\nHost: server.mesh:8080\r\n\r\n')
                    if k.recv(64).startswith(b'HTTP/1.1 200'): res['t'] = time.time(); k.close(); return
                    k.close()
                except OSError: pass
                time.sleep(0.003)
        t = threading.Thread(target=go); t.start(); t.join()
        if 't' not in res: raise SystemExit(f'{s.name}: not ready in {limit}s; see {s.run}')
        try: return res['t'] - float(open(s.run + '/t0').read())
        except FileNotFoundError: return 0.0
    def pids(s, roles=('client', 'server')):
        try: own = [(r, int(p)) for r, p in (l.split() for l in open(s.run + '/pids')) if r in roles]
        except FileNotFoundError: return []
        return [(r, d) for r, p in own for d in family(p)]
    def cpu(s):
        d = {'client': 0.0, 'server': 0.0}
        for r, p in s.pids():
            f = open(f'/proc/{p}/stat').read().rsplit(')', 1)[1].split(); d[r] += (int(f[11]) + int(f[12])) / TCK
        return d
    def rss(s):
        d = {'client': 0, 'server': 0}
        for r, p in s.pids():
            for l in open(f'/proc/{p}/status'):
                if l.startswith('VmRSS'): d[r] += int(l.split()[1]) / 1024
                if l.startswith('RssAnon'): d[r + '_anon'] = d.get(r + '_anon', 0) + int(l.split()[1]) / 1024
        return {k: round(v, 1) for k, v in d.items()}
    def stop(s):
        ps = [p for _, p in s.pids(('client', 'server', 'aux'))]
        for p in ps:
            try: os.kill(p, signal.SIGKILL)
            except ProcessLookupError: pass
        for a in s.app: a.kill(); a.wait()
        time.sleep(0.3)
        for n in (s.c, s.s, s.c + '-zt', s.s + '-zt', f'pm{s.idx}w'): subprocess.run(['ip', 'netns', 'del', n], capture_output=True)
    def x(s, *a, timeout=90): return subprocess.run(['ip', 'netns', 'exec', s.c, *a], capture_output=True, text=True, timeout=timeout).stdout

def m_lat(conns, qps=int(os.environ.get('QPS', 1000)), dur=int(os.environ.get('DUR', 6))):
    def f(p): return json.loads(p.x(KIT, 'load', f'{p.sip}:8080', str(conns), str(qps), str(dur)))
    return f
def wrk(p, conns, dur, close):
    o = p.x('wrk', '-t1', f'-c{conns}', f'-d{dur}s', '--latency', *(['-H', 'Connection: close'] if close else []), f'http://{p.sip}:8080/')
    n, t = re.search(r'(\d+) requests in ([\d.]+)s', o).groups()
    e = re.search(r'Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)', o); bad = sum(map(int, e.groups())) if e else 0
    b = re.search(r'Non-2xx or 3xx responses: (\d+)', o); bad += int(b.group(1)) if b else 0
    g = re.search(r'99%\s+([\d.]+)(us|ms|s)', o); p99 = float(g.group(1)) * {'us': 1, 'ms': 1e3, 's': 1e6}[g.group(2)]
    return {'rps': round(int(n) / float(t)), 'reqs': int(n), 'bad': bad, 'p99': round(p99)}
def m_rps(p): return wrk(p, 64, 5, False)
def m_conn(p): return wrk(p, 16, 4, True)
def m_bulk(n):
    def f(p):
        j = json.loads(p.x('iperf3', '-c', p.sip, '-p', '5201', '-t', '5', '-P', str(n), '-J'))
        e = j['end']['sum_received']; return {'gbps': round(e['bits_per_second'] / 1e9, 3), 'gb': e['bytes'] / 1e9}
    return f
def m_idle(p): return {'rss': p.rss()}
def m_hold(p, n=1000):
    b = p.rss()
    k = subprocess.Popen(['ip', 'netns', 'exec', p.c, KIT, 'hold', f'{p.sip}:8080', str(n), '12'], stdout=subprocess.PIPE, text=True)
    l = k.stdout.readline(); time.sleep(6); a = p.rss(); k.wait()
    return {'hold': l.strip(), 'rss_before': b, 'rss': a, 'kib_per_conn': {r: round((a[r] - b[r]) * 1024 / n, 1) for r in ('client', 'server')}}
MEAS = {'lat1': m_lat(1), 'lat64': m_lat(64), 'rps': m_rps, 'conn': m_conn, 'bulk1': m_bulk(1), 'bulk8': m_bulk(8), 'idle': m_idle, 'hold': m_hold}

def measure(p, m):
    l0 = open('/proc/loadavg').read().split()[0]; c0 = p.cpu(); s0 = open('/proc/stat').readline().split()[1:]; t0 = time.time()
    r = MEAS[m](p); time.sleep(0.2)
    c1 = p.cpu(); s1 = open('/proc/stat').readline().split()[1:]; dt = time.time() - t0
    d = [(int(b) - int(a)) / TCK for a, b in zip(s0, s1)]
    r['cpu_c'], r['cpu_s'] = round(c1['client'] - c0['client'], 2), round(c1['server'] - c0['server'], 2)
    r['sys_busy'] = round(sum(d[:3]) + d[5] + d[6], 2); r['steal'] = round(d[7], 2); r['load_before'] = float(l0); r['secs'] = round(dt, 1)
    if 'reqs' in r: r['cpu_per_M'] = round((r['cpu_c'] + r['cpu_s']) / r['reqs'] * 1e6, 1)
    if r.get('gb'): r['cpu_per_GB'] = round((r['cpu_c'] + r['cpu_s']) / r['gb'], 3)
    return r
def up(names, nwl=0, base=1):
    ps = [Peer(n, base + i, nwl) for i, n in enumerate(names)]
    for p in ps: p.stop()   # leftovers of netns only
    return ps
def bench(a):
    ps = up(a.peers.split(','), a.nwl, a.base); out = open(a.out, 'a')
    try:
        for p in ps: p.start(); print(p.name, 'ready %.3fs' % p.ready(), p.rss(), flush=True)
        time.sleep(3)
        for m in a.measures.split(','):
            for rep in range(a.reps):
                o = ps[:]; random.shuffle(o)
                for p in o:
                    try: r = measure(p, m)
                    except Exception as e: r = {'error': repr(e)[:300]}
                    out.write(json.dumps({'peer': p.name, 'm': m, 'rep': rep, **r}) + '\n'); out.flush(); print(m, rep, p.name, r, flush=True); time.sleep(0.5)
    finally:
        for p in ps: p.stop()
def memory(a):
    out = open(a.out, 'a')
    for n in map(int, a.nwl_list.split(',')):
        for name in a.peers.split(','):
            p = up([name], n, a.base)[0]
            try:
                p.start(); t = p.ready(180); time.sleep(a.settle)
                r = {'peer': name, 'm': 'mem', 'nwl': n, 'ready': round(t, 3), 'rss': p.rss()}; out.write(json.dumps(r) + '\n'); out.flush(); print(r, flush=True)
            finally: p.stop()
def start(a):
    out = open(a.out, 'a')
    for rep in range(a.reps):
        for name in a.peers.split(','):
            p = up([name], a.nwl, a.base)[0]
            try: p.start(); t = p.ready(); r = {'peer': name, 'm': 'start', 'rep': rep, 'ready': round(t, 3)}; out.write(json.dumps(r) + '\n'); out.flush(); print(r, flush=True)
            finally: p.stop()
def verify(a):
    """each peer must carry the request encrypted: sniff the client's eth0 for plaintext"""
    for name in a.peers.split(','):
        p = up([name], a.nwl, a.base)[0]
        try:
            p.start(); p.ready(); res = {}
            def sniff():
                fd = os.open('/var/run/netns/' + p.c, os.O_RDONLY); libc.setns(fd, 0); os.close(fd)
                k = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3)); k.bind(('eth0', 0)); k.settimeout(0.2); n = plain = 0; ports = set(); end = time.time() + 2.5
                while time.time() < end:
                    try: d = k.recv(65535)
                    except TimeoutError: continue
                    n += 1; plain += b'HTTP/1.1' in d or b'GET /' in d
                    if len(d) > 38 and d[23] == 6: ports.add(min(int.from_bytes(d[34:36], 'big'), int.from_bytes(d[36:38], 'big')))
                res.update(packets=n, plaintext=plain, ports=sorted(ports))
            t = threading.Thread(target=sniff); t.start(); time.sleep(0.3)
            r = m_lat(4, 200, 1)(p); t.join(); print(name, res, 'requests', r['reqs'], 'bad', r['bad'], flush=True)
        finally: p.stop()
KEYS = {'lat1': ['p50', 'p90', 'p99', 'p99.9', 'cpu_per_M'], 'lat64': ['p50', 'p90', 'p99', 'p99.9', 'cpu_per_M'], 'rps': ['rps', 'p99', 'cpu_per_M'], 'conn': ['rps', 'p99', 'cpu_per_M', 'bad'],
        'bulk1': ['gbps', 'cpu_per_GB'], 'bulk8': ['gbps', 'cpu_per_GB'], 'start': ['ready']}
def table(a):
    rows = [json.loads(l) for f in a.files for l in open(f)]; peers = list(dict.fromkeys(r['peer'] for r in rows))
    def sm(v): v = sorted(v); return f'{v[0]:g} / **{statistics.median(v):g}** / {v[-1]:g}'
    print('| measure | ' + ' | '.join(peers) + ' |\n|---|' + '---|' * len(peers))
    for m, ks in KEYS.items():
        for k in ks:
            cell = [[r[k] for r in rows if r['peer'] == p and r['m'] == m and k in r] for p in peers]
            if any(cell): print(f'| {m} {k} | ' + ' | '.join(sm(c) if c else '–' for c in cell) + ' |')
    if a.ratio:
        print(f'\nratios to {a.ratio} (median over repetitions of the per-repetition ratio, min–max)\n\n| measure | ' + ' | '.join(peers) + ' |\n|---|' + '---|' * len(peers))
        for m, ks in KEYS.items():
            for k in ks:
                def by(p): return {r['rep']: r[k] for r in rows if r['peer'] == p and r['m'] == m and k in r}
                ref = by(a.ratio); line = []
                for p in peers:
                    v = [x / ref[i] for i, x in by(p).items() if ref.get(i)]
                    line.append(f'{statistics.median(v):.2f} ({min(v):.2f}–{max(v):.2f})' if v else '–')
                if any(x != '–' for x in line): print(f'| {m} {k} | ' + ' | '.join(line) + ' |')
    for m in ('idle', 'hold', 'mem'):
        for r in rows:
            if r['m'] == m: print(f"- {m} {r['peer']} nwl={r.get('nwl', '-')} rss={r['rss']} {('per-conn KiB ' + str(r['kib_per_conn']) + ' ' + r['hold']) if 'hold' in r else ''} {r.get('ready', '')}")
ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); sp = ap.add_subparsers(required=True)
for n, f in (('bench', bench), ('memory', memory), ('start', start), ('verify', verify), ('table', table)):
    q = sp.add_parser(n); q.set_defaults(f=f)
    if n == 'table': q.add_argument('files', nargs='+'); q.add_argument('--ratio')
    else:
        q.add_argument('--peers', required=True); q.add_argument('--reps', type=int, default=3); q.add_argument('--out', default='results.jsonl'); q.add_argument('--base', type=int, default=1)
        if n == 'memory': q.add_argument('--nwl', dest='nwl_list', default='0,1000,10000'); q.add_argument('--settle', type=float, default=15)
        else: q.add_argument('--nwl', type=int, default=0)
        if n == 'bench': q.add_argument('--measures', default='lat1,lat64,rps,conn,bulk1,bulk8,hold')
a = ap.parse_args(); a.f(a)
