# The class of each setting of Nix 2.18 to 2.34 in the jobs' daemon. The configuration belongs to the host's owner, and
# any line of it may give power to a job. A new setting needs a class here; a test knows all names.
{
  # Our values, which override nix.conf. The arguments are the package `nix` and values of daemon.nix.
  forced =
    {
      nix,
      limits,
      keepHook,
      buildDir,
    }:
    {
      # Any other store, the host's own daemon above all, would take the requests for root's.
      store = "local";
      # Without namespaces in the kernel a build fails, instead of running without a sandbox.
      sandbox = "true";
      sandbox-fallback = "false";
      filter-syscalls = "true";
      allow-new-privileges = "false";
      require-drop-supplementary-groups = "true";
      # Without a group, builds run as root.
      build-users-group = "nixbld";
      build-dir = buildDir;
      # Without signatures any client may add a path, and the contents of a path would be the job's choice.
      require-sigs = "true";
      # With the owner's key, machines that trust it would accept the builds of strangers.
      secret-key-files = "";
      allowed-users = "root nixprov-filter";
      trusted-users = "root";
      netrc-file = "/dev/null";
      access-tokens = "";
      impure-env = "";
      keep-failed = "false";
      # The job's own log has it. A copy here would never be collected, and its readers are hard to control.
      keep-build-log = "false";
      json-log-path = "";
      max-build-log-size = toString (limits.buildLogMiB * 1024 * 1024);
      timeout = toString limits.buildTimeout;
      max-silent-time = toString limits.buildSilence;
      post-build-hook = "${keepHook}";
      diff-hook = "";
      run-diff-hook = "false";
      # A remote machine's Nix has the owner's key and none of these settings.
      builders = "";
      build-hook = "${nix}/bin/nix __build-remote";
      external-builders = "[]";
      # Nix makes groups below its own, and those are read-only here.
      use-cgroups = "false";
    };

  # Some cannot be set, or emptied, without their feature. It is off again before the daemon starts.
  features = {
    external-builders = "external-builders";
    impure-env = "configurable-impure-env";
    use-cgroups = "cgroups";
  };

  # Forced settings that are newer than 2.18. An older Nix would warn of them.
  since = {
    build-dir = "2.22";
    external-builders = "2.32";
    impure-env = "2.19";
    json-log-path = "2.30";
  };

  # Forced by daemon.nix with values that are only known on the host.
  measured = [
    "experimental-features"
    "max-free"
    "min-free"
  ];

  # Features that no job's build gets: they would give it a daemon without our filter.
  withheld = [
    "cgroups"
    "configurable-impure-env"
    "external-builders"
    "recursive-nix"
  ];

  # The owner's value counts for jobs too, for the given reason.
  inherited = {
    allow-symlinked-store = "where the store is, is the host's affair, and both daemons must agree";
    allowed-impure-host-deps = "files of the host that the owner names; read on macOS only";
    auto-allocate-uids = "other users for builds, chosen by Nix and as far from the host's";
    auto-optimise-store = "one store, one habit";
    cores = "what a build may use is the slice's limit";
    download-speed = "the owner's line";
    extra-platforms = "what binfmt runs on this host";
    fallback = "building what a cache does not give";
    gc-reserved-space = "one store, one habit";
    hashed-mirrors = "what they give is checked by its hash";
    http-connections = "the owner's line";
    id-count = "the range of auto-allocate-uids";
    ignored-acls = "the file system's";
    keep-derivations = "what the collector keeps is the owner's rule";
    keep-env-derivations = "what the collector keeps is the owner's rule";
    keep-outputs = "what the collector keeps is the owner's rule";
    max-jobs = "the filter writes a job's own number";
    max-substitution-jobs = "the owner's line";
    plugin-files = "the host's own code; without it Nix may not know a store that it uses";
    pre-build-hook = "names what a build of a host needs mounted, a graphics card say; the owner's program, run as root";
    sandbox-build-dir = "a name inside the sandbox";
    sandbox-dev-shm-size = "memory is the slice's limit";
    sandbox-paths = "folders that the owner gives to every build";
    ssl-cert-file = "whom the host trusts for downloads";
    start-id = "the range of auto-allocate-uids";
    substitute = "caches of the host are caches of its jobs";
    substituters = "caches of the host are caches of its jobs";
    system = "what this host builds for";
    system-features = "what this host can do for builds, kvm say; recursive-nix is withheld as a feature";
    trusted-public-keys = "caches of the host are caches of its jobs";
    trusted-substituters = "caches that a job may name";
    use-sqlite-wal = "one database, one mode";
  };

  # Settings by which a job gains nothing: speed, retries, verbosity. Others are read only by evaluation and commands,
  # on the client's side.
  harmless = [
    "abort-on-warn"
    "accept-flake-config"
    "allow-dirty"
    "allow-dirty-locks"
    "allow-import-from-derivation"
    "allow-unsafe-native-code-during-evaluation"
    "allowed-uris"
    "always-allow-substitutes"
    "bash-prompt"
    "bash-prompt-prefix"
    "bash-prompt-suffix"
    "build-poll-interval"
    "builders-use-substitutes"
    "commit-lock-file-summary"
    "commit-lockfile-summary"
    "compress-build-log"
    "connect-timeout"
    "darwin-log-sandbox-violations"
    "debugger-on-trace"
    "debugger-on-warn"
    "download-attempts"
    "download-buffer-size"
    "eval-attrset-update-layer-rhs-threshold"
    "eval-cache"
    "eval-profile-file"
    "eval-profiler"
    "eval-profiler-frequency"
    "eval-system"
    "flake-registry"
    "fsync-metadata"
    "fsync-store-paths"
    "http2"
    "ignore-try"
    "impersonate-linux-26"
    "keep-going"
    "lint-absolute-path-literals"
    "lint-short-path-literals"
    "lint-url-literals"
    "log-lines"
    "max-call-depth"
    "min-free-check-interval"
    "nar-buffer-size"
    "narinfo-cache-meta-ttl"
    "narinfo-cache-negative-ttl"
    "narinfo-cache-positive-ttl"
    "nix-path"
    "nix-shell-always-looks-for-shell-nix"
    "nix-shell-shebang-arguments-relative-to-script"
    "preallocate-contents"
    "print-missing"
    "pure-eval"
    "restrict-eval"
    "show-trace"
    "stalled-download-timeout"
    "sync-before-registering"
    "tarball-ttl"
    "trace-function-calls"
    "trace-import-from-derivation"
    "trace-verbose"
    "trust-tarballs-from-git-forges"
    "upgrade-nix-store-path-url"
    "use-case-hack"
    "use-registries"
    "use-xdg-base-directories"
    "user-agent-suffix"
    "warn-dirty"
    "warn-large-path-threshold"
    "warn-short-path-literals"
  ];
}
