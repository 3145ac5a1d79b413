# Jobs' builds are kept for the next job. They are held from the collector for some days, and given up oldest first
# when the disk runs short. The collector itself runs only when no job does.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.nixprov;
  nix = config.nix.package or pkgs.nix;
  internal = import ./internal.nix { inherit lib; };

  # Run by our daemon, as root, after each build and before its output may be collected. The paths are Nix' own words.
  hook = pkgs.writeScript "nixprov-keep" ''
    #!${pkgs.bash}/bin/bash
    set -euo pipefail
    for path in $OUT_PATHS; do
      ${pkgs.coreutils}/bin/ln -sfn "$path" "${roots}/''${path##*/}"
    done
  '';

  roots = "/nix/var/nix/gcroots/nixprov";

  collect = pkgs.writeScript "nixprov-collect" ''
    #!${pkgs.bash}/bin/bash
    set -euo pipefail
    free_percent() { echo $(($(stat --file-system --format '100 * %a / %b' /nix/store))); }

    find ${roots} -type l -mtime +${toString (cfg.cache.keepDays - 1)} -delete
    [ "$(free_percent)" -lt ${toString cfg.cache.maxFreePercent} ] || exit 0

    # A job's own paths are held by its connection while it builds, but not between two commands of its script.
    running=$(${cfg.container.command} ps --quiet --filter label=com.gitlab.gitlab-runner.managed=true)
    if [ -n "$running" ]; then
      echo "the disk runs short, but jobs are running: next time"
      exit 0
    fi
    # Half of what is held, oldest first, until there is room or nothing is left to give.
    while [ "$(free_percent)" -lt ${toString cfg.cache.maxFreePercent} ]; do
      held=$(find ${roots} -type l -printf '%T@ %p\n' | sort -n | cut -d' ' -f2-)
      count=$(printf '%s' "$held" | grep -c . || true)
      printf '%s\n' "$held" | head -n $(((count + 1) / 2)) | while read -r root; do
        [ -z "$root" ] || rm -f "$root"
      done
      ${nix}/bin/nix-store --gc
      [ "$count" -gt 0 ] || break
    done
  '';
in
{
  options.services.nixprov.keepHook = internal lib.types.path hook "What our daemon runs after each build.";

  config = {
    systemd.tmpfiles.rules = [ "d ${roots} 0755 root root -" ];

    systemd.services.nixprov-collect = {
      description = "Outputs of GitLab jobs that are held no longer";
      path = [
        pkgs.coreutils
        pkgs.findutils
        pkgs.gnugrep
      ];
      serviceConfig = {
        Type = "oneshot";
        ExecStart = collect;
        Nice = 19;
        IOSchedulingClass = "idle";
      };
    };

    systemd.timers.nixprov-collect = {
      description = "Outputs of GitLab jobs that are held no longer";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = "hourly";
        RandomizedDelaySec = "20min";
      };
    };
  };
}
