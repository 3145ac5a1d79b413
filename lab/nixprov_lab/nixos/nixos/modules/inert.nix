# Options of real configurations without a meaning on a machine of the lab. They are read and have no effect.
# Every other option without a module here fails: "The option `x' does not exist". Of `boot`, toplevel.nix reads
# loader.external.
{lib, ...}: let
  # Any value; sets are merged, lists joined, and of two different plain values one must be forced.
  free = lib.mkOptionType {
    name = "free";
    description = "anything";
    merge = loc: definitions: let
      values = lib.getValues definitions;
    in
      if builtins.all builtins.isList values
      then builtins.concatLists values
      else if builtins.all (value: builtins.isAttrs value && !lib.isDerivation value) values
      then (lib.types.attrsOf free).merge loc definitions
      else lib.types.anything.merge loc definitions;
    emptyValue.value = {};
  };
  inert = lib.genAttrs [
    "boot"
    "console"
    "documentation"
    "fileSystems"
    "fonts"
    "hardware"
    "i18n"
    "location"
    "powerManagement"
    "programs"
    "sound"
    "swapDevices"
    "time"
    "xdg"
    "zramSwap"
  ];
  inertServices = lib.genAttrs [
    "avahi"
    "blueman"
    "cloud-init"
    "cron"
    "dbus"
    "desktopManager"
    "displayManager"
    "fail2ban"
    "flatpak"
    "fstrim"
    "fwupd"
    "getty"
    "journald"
    "libinput"
    "logind"
    "logrotate"
    "ntp"
    "pipewire"
    "postfix"
    "printing"
    "pulseaudio"
    "qemuGuest"
    "resolved"
    "smartd"
    "tailscale"
    "timesyncd"
    "udev"
    "xserver"
  ];
  option = name:
    lib.mkOption {
      type = free;
      default =
        if name == "swapDevices"
        then []
        else {};
      description = "Without effect in the lab.";
    };
in {
  options =
    inert option
    // {
      services = inertServices option;
    };
  # Options that users' modules read without having set them.
  config = {
    boot.isContainer = lib.mkDefault true;
    time.timeZone = lib.mkDefault null;
    i18n.defaultLocale = lib.mkDefault "en_US.UTF-8";
  };
}
