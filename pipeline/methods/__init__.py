"""One folder a method: settings to stages, objective and state. What two methods share lies beside the folders."""
