# The network without addresses, which the lab gives: names, proxies and the record of open ports.
{
  config,
  lib,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option optional flag inert;
  cfg = config.networking;
  proxy = option (types.nullOr types.str) cfg.proxy.default "A proxy.";
  ports = mkOption {
    type = types.listOf types.port;
    default = [];
    apply = list: lib.naturalSort (lib.unique list);
    description = "Open ports.";
  };
  ranges = option (types.listOf (types.attrsOf types.port)) [] "Open ranges of ports.";
  ignored = [
    "bonds"
    "bridges"
    "dhcpcd"
    "extraHosts"
    "hostId"
    "interfaces"
    "ifstate"
    "localCommands"
    "nat"
    "networkmanager"
    "nftables"
    "resolvconf"
    "search"
    "timeServers"
    "useDHCP"
    "useNetworkd"
    "usePredictableInterfaceNames"
    "vlans"
    "wireguard"
    "wireless"
    "wg-quick"
    "enableIPv6"
    "nameservers"
    "defaultGateway"
    "defaultGateway6"
    "domain"
    "fqdn"
    "hosts"
    "dhcpcd"
  ];
in {
  options.networking =
    lib.genAttrs ignored (_: inert)
    // {
      hostName =
        option (types.strMatching "^$|^[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?$") "nixos" "The name of the machine; empty: as the network says.";
      proxy = {
        default = optional types.str "The proxy for everything.";
        httpProxy = proxy;
        httpsProxy = proxy;
        ftpProxy = proxy;
        rsyncProxy = proxy;
        allProxy = proxy;
        noProxy = optional types.str "Names that are reached without a proxy.";
        envVars = mkOption {
          type = types.attrsOf types.str;
          internal = true;
          default = {};
          description = "Environment of programs that use the proxy.";
        };
      };
      firewall = {
        enable = flag true "Without effect in the lab.";
        package = inert;
        allowPing = flag true "Without effect in the lab.";
        allowedTCPPorts = ports;
        allowedUDPPorts = ports;
        allowedTCPPortRanges = ranges;
        allowedUDPPortRanges = ranges;
        trustedInterfaces = option (types.listOf types.str) [] "Without effect in the lab.";
        interfaces = inert;
        extraCommands = option types.lines "" "Without effect in the lab.";
        extraStopCommands = option types.lines "" "Without effect in the lab.";
        extraInputRules = option types.lines "" "Without effect in the lab.";
        checkReversePath = option types.anything true "Without effect in the lab.";
        logRefusedConnections = flag true "Without effect in the lab.";
      };
    };
  config = {
    networking.proxy.envVars = lib.filterAttrs (_: value: value != null) {
      http_proxy = cfg.proxy.httpProxy;
      https_proxy = cfg.proxy.httpsProxy;
      ftp_proxy = cfg.proxy.ftpProxy;
      rsync_proxy = cfg.proxy.rsyncProxy;
      all_proxy = cfg.proxy.allProxy;
      no_proxy = cfg.proxy.noProxy;
    };
    environment.sessionVariables = cfg.proxy.envVars;
    environment.etc = lib.mkIf (cfg.hostName != "") {hostname.text = cfg.hostName + "\n";};
    # NixOS' own name service answers for the machine's name; Debian's needs a line.
    system.activationScripts.hosts = {
      deps = ["etc"];
      text = ''
        name=$(cat /proc/sys/kernel/hostname)
        grep -qsw "$name" /etc/hosts || echo "127.0.0.2 $name" >> /etc/hosts
      '';
    };
    system.activationScripts.hostname = lib.mkIf (cfg.hostName != "") {
      deps = ["etc"];
      text = ''echo ${cfg.hostName} > /proc/sys/kernel/hostname'';
    };
  };
}
